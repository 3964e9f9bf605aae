"""The same training on one device, on several and in several processes."""

import json
import shutil
import signal

import keras
import numpy as np
import pytest

from keras_robust.backend import cluster as clusters
from keras_robust.backend.distribution import Distribution
from keras_robust.recipes import checkpoints
from keras_robust.training import distribution
from tests.recipes import distributed, tiny
from tests.recipes.processes import cluster, run_together

BACKEND = keras.backend.backend()
KIND = {"tensorflow": "mirrored", "jax": "data_parallel", "torch": "data_parallel"}[BACKEND]
# TensorFlow traces a step for each device; PyTorch has a process for each.
DEVICES = {"tensorflow": 2, "jax": 4, "torch": 1}
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="of that backend")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of the same training and run: "one" device, "several", and two processes, "hosts".

    The runs on several and in two processes go on from the checkpoint that the one device wrote in its first epoch.
    With the outputs and exit statuses of the programs.
    """
    root = tmp_path_factory.mktemp("trained")
    source = tiny.images(root / "images.npz")
    for name in ("one", "several", "hosts"):
        (root / name / "run" / "checkpoints").mkdir(parents=True)
    distributed.both(distribution.start("single"), root / "one", source)
    for name in ("several", "hosts"):
        for file in ("recipe.json", "checkpoints/step-000000002.safetensors"):
            shutil.copy(root / "one/run" / file, root / name / "run" / file)
    started = [("hosts", "auto", 1, extra) for extra in cluster(BACKEND, 2)]
    if BACKEND != "torch":
        started.append(("several", KIND, DEVICES[BACKEND], {}))
    program = ("-m", "tests.one_framework", "tests.recipes.distributed")
    commands = [
        ([*program, *map(str, (root / name, source, kind, devices))], extra) for name, kind, devices, extra in started
    ]
    return root, *run_together(commands, may_fail=BACKEND == "torch")


@pytest.mark.slow
def test_training_does_not_depend_on_the_number_of_devices(trained):
    """Weights, moving averages, batch statistics, losses and metrics, with random starts, stochastic depth, sample
    weights, soft labels, and a last batch that does not divide evenly."""
    results = {f"{path.parent.name}{path.stem[-1]}": np.load(path) for path in trained[0].glob("*/fit-*.npz")}
    outcomes = {name: json.loads(str(result["outcome"])) for name, result in results.items()}
    others = sorted(results.keys() - {"one0"})
    assert others == ["hosts0", "hosts1", *(["several0"] if DEVICES[BACKEND] > 1 else [])]
    names = [name for name in results["one0"].files if name != "outcome"]
    assert len(names) > 12
    for name in others:
        for each in names:
            # Float32 sums in another order; the weights have moved by 1e-2 a step.
            np.testing.assert_allclose(results[name][each], results["one0"][each], rtol=1e-5, atol=2e-6)
        for curve, values in outcomes["one0"]["history"].items():
            np.testing.assert_allclose(outcomes[name]["history"][curve], values, rtol=2e-5, err_msg=f"{name} {curve}")
    for name, outcome in outcomes.items():
        assert "1 images are not" in outcome["bad"], name
        assert outcome["any"] == [name.startswith("hosts"), False]
    if "several0" in others:
        assert outcomes["several0"]["line"] == f"distribution: {KIND}, {DEVICES[BACKEND]} CPUs"
    assert "2 CPUs in 2 processes, of which this is number 1" in outcomes["hosts1"]["line"]
    if BACKEND == "tensorflow":
        for name, said in outcomes["several0"]["refused"].items():
            assert name in said
            assert "under MirroredStrategy with 2 replicas" in said


@pytest.mark.slow
def test_runs_go_on_on_another_number_of_devices(trained):
    """A checkpoint of one device, on several devices and in two processes: the end is that of one device.

    On PyTorch one of the two processes was killed, which has ended the other one; one process finishes their run.
    """
    trained, outputs, statuses = trained
    if BACKEND == "torch":
        from keras_robust.backend.torch.watch import STATUS

        assert statuses == [STATUS, -signal.SIGKILL], outputs
        assert "process 1 of the training has died, and process 0 ends with it" in outputs[0]
        left = checkpoints.CheckpointFolder(trained / "hosts/run/checkpoints").readable()
        assert [checkpoint.step for checkpoint in left] == [4, 3, 2]
        distributed.recipe(Distribution(), trained / "hosts/run", trained / "images.npz")
    files = ("best.keras", "model.keras", "model_ema.keras", "checkpoints/step-000000006.safetensors")
    first, start = (
        checkpoints.read(trained / "one/run" / f"checkpoints/step-00000000{step}.safetensors") for step in (6, 2)
    )
    moved = [np.abs(first[name] - start[name]).max() for name in first if "kernel" in name and "model" in name]
    assert moved
    assert min(moved) > 1e-3
    history = json.loads((trained / "one/run/history.json").read_text())
    for name in ("hosts", *(["several"] if DEVICES[BACKEND] > 1 else [])):
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
    with found.scope():
        assert found.any(True)
    found.stop()


def test_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"distribution must be one of 'auto', 'single'.* received 'ring'"):
        distribution.start("ring")
    foreign = {"tensorflow": "data_parallel", "jax": "mirrored", "torch": "mirrored"}[BACKEND]
    with pytest.raises(ValueError, match=f"on the {BACKEND} backend; received '{foreign}'"):
        distribution.start(foreign)
    if BACKEND == "torch":
        with pytest.raises(ValueError, match="takes a process for each device on the torch backend: start them by"):
            distribution.start("data_parallel")
    if BACKEND == "tensorflow":
        with pytest.raises(ValueError, match="set TF_CONFIG, or start with srun"):
            distribution.start("multi_worker")
        monkeypatch.setenv("TF_CONFIG", '{"cluster": {}}')
        with pytest.raises(ValueError, match="TF_CONFIG must be JSON such as"):
            distribution.start("auto")


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of that backend")
def test_parts_of_a_batch_are_of_known_size():
    """Where all are alike; so the step sees that groups of mixed images lie within them."""
    import tensorflow as tf

    from keras_robust.backend.tensorflow.distribution import _split

    x, y = np.arange(24.0).reshape(6, 2, 2), np.arange(6)
    for length in (6, 5):
        data = tf.data.Dataset.from_tensors((x[:length], y[:length])).flat_map(lambda *batch: _split(batch, 2))
        assert data.element_spec[0].shape[0] == (3 if length == 6 else None)
        parts = list(data.as_numpy_iterator())
        assert len(parts) == 2
        for both, whole in zip(zip(*parts), (x, y)):
            np.testing.assert_array_equal(np.concatenate(both), whole[:length])


SLURM = {
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_NODELIST": "gpu[08-10],login-2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x3),2",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "7001",
}


@on_torch
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reduction": "sum"}, r"loss must have the reduction 'sum_over_batch_size' .* received 'sum'"),
        ({"jit_compile": True}, r"jit_compile must be 'auto' or False in several processes, as model has batch norm"),
        ({"foreign": True}, r"model must normalise batches by keras.layers.BatchNormalization"),
    ],
)
def test_what_several_processes_refuse(monkeypatch, options, said):
    import torch

    from keras_robust.backend.torch import processes

    monkeypatch.setattr(processes, "shared", lambda: True)
    net = distributed.network()
    if options.pop("foreign", False):
        foreign = keras.layers.Lambda(lambda x: x)
        foreign.normalization = torch.nn.BatchNorm1d(5)
        net = keras.Model(net.input, foreign(net.output))
    trainer = distributed.adversarial(net)
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, reduction=options.pop("reduction", "sum_over_batch_size")
    )
    with pytest.raises(ValueError, match=said):
        trainer.compile("sgd", loss, **options)


@on_torch
def test_keras_has_no_distribution_on_torch():
    """Once it has, it can do what `processes.py` does: see there."""
    from keras_robust.backend.torch.distribution import KERAS_DISTRIBUTES

    assert not KERAS_DISTRIBUTES


def test_torchrun_is_read(monkeypatch):
    assert clusters.from_torchrun() is None
    variables = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"torchrun .* MASTER_PORT=None"):
        clusters.from_torchrun()
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert clusters.from_torchrun() == clusters.Cluster(("10.0.0.1:29500",) * 4, 3, (1, 2))
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(ValueError, match=r"must lie in \[0, 3\]"):
        clusters.from_torchrun()


def test_slurm_steps_are_read(monkeypatch):
    assert clusters.from_slurm() is None
    for name, value in {**SLURM, "CUDA_VISIBLE_DEVICES": "0,1,2,3"}.items():
        monkeypatch.setenv(name, value)
    clusters._share_gpus.cache_clear()
    found = clusters.from_slurm()
    assert clusters.from_slurm() == found
    assert found.local == (1, 2)
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
