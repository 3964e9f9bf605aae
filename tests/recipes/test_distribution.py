"""The same training on one device, on several and in several processes."""

import json
import shutil

import keras
import numpy as np
import pytest

from keras_robust.backend import cluster as clusters
from keras_robust.recipes import checkpoints
from keras_robust.training import distribution
from tests.recipes import distributed, tiny
from tests.recipes.processes import cluster, run_together

BACKEND = keras.backend.backend()
KIND = {"tensorflow": "mirrored", "jax": "data_parallel", "torch": "single"}[BACKEND]
# TensorFlow traces a step for each device.
DEVICES = {"tensorflow": 2, "jax": 4}
on_several = pytest.mark.skipif(BACKEND == "torch", reason="Keras trains on one device under PyTorch")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of the same training and run: "one" device, "several", and two processes, "hosts".

    The runs on several and in two processes go on from the checkpoint that the one device wrote in its first epoch.
    """
    root = tmp_path_factory.mktemp("trained")
    source = tiny.images(root / "images.npz")
    for name in ("one", "several", "hosts"):
        (root / name / "run" / "checkpoints").mkdir(parents=True)
    distributed.both(distribution.start("single"), root / "one", source)
    for name in ("several", "hosts"):
        for file in ("recipe.json", "checkpoints/step-000000002.safetensors"):
            shutil.copy(root / "one/run" / file, root / name / "run" / file)
    started = [("several", KIND, DEVICES[BACKEND], {}), *(("hosts", "auto", 1, extra) for extra in cluster(BACKEND, 2))]
    run_together(
        [
            (["-m", "tests.recipes.distributed", *map(str, (root / name, source, kind, devices))], extra)
            for name, kind, devices, extra in started
        ]
    )
    return root


@pytest.mark.slow
@on_several
def test_training_does_not_depend_on_the_number_of_devices(trained):
    """Weights, moving averages, batch statistics, losses and metrics, with random starts, stochastic depth, sample
    weights, soft labels, and a last batch that does not divide evenly."""
    results = {f"{path.parent.name}{path.stem[-1]}": np.load(path) for path in trained.glob("*/fit-*.npz")}
    outcomes = {name: json.loads(str(result["outcome"])) for name, result in results.items()}
    assert sorted(results) == ["hosts0", "hosts1", "one0", "several0"]
    names = [name for name in results["one0"].files if name != "outcome"]
    assert len(names) > 12
    for name in ("several0", "hosts0", "hosts1"):
        for each in names:
            # Float32 sums in another order; the weights have moved by 1e-2 a step.
            np.testing.assert_allclose(results[name][each], results["one0"][each], rtol=1e-5, atol=2e-6)
        for curve, values in outcomes["one0"]["history"].items():
            np.testing.assert_allclose(outcomes[name]["history"][curve], values, rtol=2e-5, err_msg=f"{name} {curve}")
    for name, outcome in outcomes.items():
        assert "1 images are not" in outcome["bad"], name
        assert outcome["any"] == [name.startswith("hosts"), False]
    assert outcomes["several0"]["line"] == f"distribution: {KIND}, {DEVICES[BACKEND]} CPUs"
    assert "2 CPUs in 2 processes, of which this is number 1" in outcomes["hosts1"]["line"]
    if BACKEND == "tensorflow":
        for name, said in outcomes["several0"]["refused"].items():
            assert name in said
            assert "under MirroredStrategy with 2 replicas" in said


@pytest.mark.slow
@on_several
def test_runs_go_on_on_another_number_of_devices(trained):
    """A checkpoint of one device, on several devices and in two processes: the end is that of one device."""
    files = ("best.keras", "model.keras", "model_ema.keras", "checkpoints/step-000000006.safetensors")
    first, start = (
        checkpoints.read(trained / "one/run" / f"checkpoints/step-00000000{step}.safetensors") for step in (6, 2)
    )
    moved = [np.abs(first[name] - start[name]).max() for name in first if "kernel" in name and "model" in name]
    assert moved
    assert min(moved) > 1e-3
    history = json.loads((trained / "one/run/history.json").read_text())
    for name in ("several", "hosts"):
        assert all((trained / name / "run" / file).is_file() for file in files)
        there = checkpoints.read(trained / name / "run" / files[-1])
        assert sorted(there) == sorted(first)
        for variable in first:
            # Adam divides by the root of the second moment, which turns rounding of small gradients into more.
            np.testing.assert_allclose(there[variable], first[variable], rtol=1e-4, atol=2e-4, err_msg=variable)
        gone_on = json.loads((trained / name / "run/history.json").read_text())
        for epoch, expected in zip(gone_on, history, strict=True):
            assert epoch.keys() == expected.keys()
            assert epoch["val_robust_accuracy"] == expected["val_robust_accuracy"]
            # Of the epoch that was gone on with, the curves of training are those of its rest.
            names = [curve for curve in expected if curve.startswith(("val_", "ema_")) or epoch["epoch"] == 2]
            there, alone = ([each[curve] for curve in names] for each in (epoch, expected))
            np.testing.assert_allclose(there, alone, rtol=1e-3, atol=1e-3)


def test_one_device_is_found(capsys):
    found = distribution.start("auto")
    assert (found.kind, found.devices, found.shard, found.writes) == ("single", 1, (1, 1), True)
    line = capsys.readouterr().out
    assert line.startswith("distribution: single, 1 CPU")
    assert ("trains on one device under PyTorch" in line) == (BACKEND == "torch")
    with found.scope():
        assert found.any(True)
    found.stop()


def test_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"distribution must be one of 'auto', 'single'.* received 'ring'"):
        distribution.start("ring")
    foreign = {"tensorflow": "data_parallel", "jax": "mirrored", "torch": "multi_worker"}[BACKEND]
    with pytest.raises(ValueError, match=f"on the {BACKEND} backend; received '{foreign}'"):
        distribution.start(foreign)
    if BACKEND == "tensorflow":
        with pytest.raises(ValueError, match="set TF_CONFIG, or start with srun"):
            distribution.start("multi_worker")
        monkeypatch.setenv("TF_CONFIG", '{"cluster": {}}')
        with pytest.raises(ValueError, match="TF_CONFIG must be JSON such as"):
            distribution.start("auto")


SLURM = {
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_NODELIST": "gpu[08-10],login-2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x3),2",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "7001",
}


def test_slurm_steps_are_read(monkeypatch):
    assert clusters.from_slurm() is None
    for name, value in {**SLURM, "CUDA_VISIBLE_DEVICES": "0,1,2,3"}.items():
        monkeypatch.setenv(name, value)
    found = clusters.from_slurm()
    hosts = ["gpu08:20016", "gpu09:20016", "gpu10:20016", "login-2:20016", "login-2:20017"]
    assert (list(found.addresses), found.index) == (hosts, 4)
    assert clusters.os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"
    monkeypatch.setenv("SLURM_STEP_NODELIST", "gpu[08-")
    with pytest.raises(ValueError, match=r"malformed list of nodes 'gpu\[08-'.*Start with srun"):
        clusters.from_slurm()
    monkeypatch.setenv("SLURM_STEP_NODELIST", SLURM["SLURM_STEP_NODELIST"])
    monkeypatch.delenv("SLURM_PROCID")
    with pytest.raises(ValueError, match="SLURM_PROCID"):
        clusters.from_slurm()


def test_node_lists(monkeypatch):
    # The examples of the manual of scontrol (show hostnames), and a rack with two ranges.
    for text, names in {
        "tux[1-3]": ["tux1", "tux2", "tux3"],
        "host1,host7,host8": ["host1", "host7", "host8"],
        "lx[15,18,32-33]": ["lx15", "lx18", "lx32", "lx33"],
        "r[1-2]n[09-10].cluster": ["r1n09.cluster", "r1n10.cluster", "r2n09.cluster", "r2n10.cluster"],
    }.items():
        assert clusters._hosts(text) == names


def test_coordinators_are_read(monkeypatch):
    assert clusters.from_keras() is None
    monkeypatch.setenv("KERAS_DISTRIBUTION_JOB_ADDRESSES", "10.0.0.1:1234")
    with pytest.raises(ValueError, match="KERAS_DISTRIBUTION_NUM_PROCESSES=None"):
        clusters.from_keras()
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", "2")
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        clusters.from_keras()
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", "1")
    assert clusters.from_keras() == clusters.Cluster(("10.0.0.1:1234",) * 2, 1)


def test_chiefs_come_first(monkeypatch):
    jobs = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": jobs, "task": {"type": "worker", "index": 1}}))
    assert clusters.from_tf_config() == clusters.Cluster(("a:1", "b:1", "c:1"), 2)
