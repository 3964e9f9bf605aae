"""How many processes of a training share a host, and its cores."""

import json

import keras
import pytest

from keras_robust import machine
from keras_robust.backend import cluster, distribution
from keras_robust.data import TrainPipeline, photo_crops, pipeline

pytestmark = pytest.mark.once
LAUNCHERS = (
    "MASTER_ADDR",
    "MASTER_PORT",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MPI_LOCALNRANKS",
    "RANK",
    "WORLD_SIZE",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_STEP_NODELIST",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "SLURM_JOB_ID",
    "SLURM_CPUS_ON_NODE",
    "TF_CONFIG",
    "KERAS_DISTRIBUTION_JOB_ADDRESSES",
    "KERAS_DISTRIBUTION_NUM_PROCESSES",
    "KERAS_DISTRIBUTION_PROCESS_ID",
)
TORCHRUN = {
    "RANK": "9",
    "WORLD_SIZE": "16",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "29500",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "8",
}
SLURM = {
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_NODELIST": "n[1-3]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_ID": "7",
}
HOSTS = {"worker": ["a:1", "b:1", "b:2", "b:3"]}


def keras_variables(addresses, count, index):
    values = (addresses, count, index)
    names = ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
    return {f"KERAS_DISTRIBUTION_{name}": value for name, value in zip(names, values)}


def without_local(variables):
    return {name: value for name, value in variables.items() if not name.startswith("LOCAL_")}


@pytest.fixture
def launched(monkeypatch):
    """Sets the variables of a launcher, and the cores that it leaves to this process."""

    def launch(environment, cores=96):
        for name in LAUNCHERS:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(machine, "available_cores", lambda: cores)
        monkeypatch.setattr(machine.os, "cpu_count", lambda: 128)

    return launch


@pytest.mark.parametrize(
    ("environment", "count"),
    [
        ({}, 1),
        (TORCHRUN, 8),
        ({**TORCHRUN, **SLURM, "SLURM_PROCID": "4"}, 8),  # torchrun within a task
        ({"RANK": "0", "WORLD_SIZE": "1"}, 1),  # as some containers have them, whatever runs there
        (without_local(TORCHRUN), 1),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 4),
        ({**SLURM, "SLURM_PROCID": "3"}, 2),
        ({**SLURM, "SLURM_PROCID": "4"}, 1),
        ({"TF_CONFIG": json.dumps({"cluster": HOSTS, "task": {"type": "worker", "index": 2}})}, 3),
        ({"TF_CONFIG": json.dumps({"cluster": HOSTS, "task": {"type": "worker", "index": 0}})}, 1),
        (keras_variables("a:1,a:2,b:1", "3", "0"), 2),
        (keras_variables("a:1", "3", "0"), 1),
    ],
)
def test_processes_of_this_host(launched, environment, count):
    launched(environment)
    assert cluster.local_processes() == count


def test_processes_of_torchrun(launched):
    launched(TORCHRUN)
    assert cluster.from_torchrun() == cluster.Cluster(("a:29500",) * 16, 9, (1, 8))
    launched(without_local(TORCHRUN))
    assert cluster.from_torchrun() == cluster.Cluster(("a:29500",) * 16, 9, (0, 1))
    for missing in ("MASTER_ADDR", "LOCAL_RANK"):
        launched({name: value for name, value in TORCHRUN.items() if name != missing})
        with pytest.raises(ValueError, match=f"cannot read what torchrun says .*{missing}=None"):
            cluster.from_torchrun()


def test_places_among_the_processes_of_a_host(launched):
    """From addresses, where each process has its own: which GPU is whose on PyTorch."""
    launched({"TF_CONFIG": json.dumps({"cluster": HOSTS, "task": {"type": "worker", "index": 2}})})
    assert cluster.from_tf_config().local == (1, 3)
    launched(keras_variables("[::1]:1,[::2]:1,[::1]:2", "3", "2"))
    assert cluster.from_keras().local == (1, 2)
    assert cluster.from_keras().hosts == ("::1", "::2", "::1")
    launched(keras_variables("a:1", "3", "2"))
    assert cluster.from_keras().local == (0, 1)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a process for each GPU is PyTorch's way")
def test_one_address_does_not_tell_gpus_apart(launched, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    launched(keras_variables("a:1", "2", "1"))
    with pytest.raises(ValueError, match=r"JOB_ADDRESSES must hold .* of every process .*process 0 alone, and 2 GPUs"):
        distribution.active.start("data_parallel")


@pytest.mark.parametrize(
    ("environment", "cores", "share"),
    [
        ({}, 96, 96),
        (TORCHRUN, 96, 12),  # in a container of 96 of the machine's 128 cores
        (TORCHRUN, 2, 1),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 128, 32),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 32, 32),  # mpirun gave each its own
        ({**SLURM, "SLURM_PROCID": "0", "SLURM_CPUS_ON_NODE": "96"}, 96, 48),  # each task may use all cores of the job
        ({**SLURM, "SLURM_PROCID": "0", "SLURM_CPUS_ON_NODE": "96"}, 48, 48),  # each its own
    ],
)
def test_cores_of_a_process(launched, environment, cores, share):
    launched(environment, cores)
    assert machine.share_of_cores(cluster.local_processes()) == share
    train = TrainPipeline(photo_crops("val", per_class=1), "basic", 8, batch_size=4)
    assert train.workers == min(share, pipeline.MOST_BY_DEFAULT)
