"""A whole run on each backend: killed at any step it goes on as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_robust as kr
from keras_robust.backend.distribution import Distribution
from keras_robust.data import TrainPipeline
from keras_robust.recipes import Preempted, TrainingBroken, callbacks, checkpoints, guards, load_run, train
from keras_robust.recipes.build import build_model
from keras_robust.recipes.runner import TrainingRun
from tests.recipes import tiny

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
ROOT = Path(kr.__file__).parents[1]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny.images(tmp_path_factory.mktemp("data") / "images.npz")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, source):
    """A run that nothing happened to, and what a callback saw of it."""
    folder, recorder = tmp_path_factory.mktemp("whole"), tiny.Recorder()
    logs = train(tiny.recipe(source), folder, callbacks=[recorder], verbose=False)
    return folder, logs, recorder


@pytest.fixture(autouse=True)
def _undisturbed(monkeypatch):
    monkeypatch.setattr(callbacks.StepWatcher, "after_step", callbacks.StepWatcher.after_step)
    monkeypatch.setattr(TrainingRun, "_log_attack", TrainingRun._log_attack)
    tiny.without_pictures()
    tiny.register()


def _last(folder):
    return checkpoints.CheckpointFolder(folder / "checkpoints").latest()


def _assert_same(folder, whole):
    assert (folder / "history.json").read_bytes() == (whole / "history.json").read_bytes()
    (a, ours), (b, theirs) = _last(folder), _last(whole)
    assert a.step == b.step == 8
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def test_leaves_everything_behind(whole):
    folder, logs, _ = whole
    assert {path.name for path in folder.iterdir()} == {
        *("recipe.json", "class_names.json", "checkpoints", "logs", "history.json"),
        *("model.keras", "model_ema.keras", "best.keras"),
    }
    assert {"loss", "accuracy", "val_accuracy", "val_robust_accuracy", "ema_robust_accuracy"} <= logs.keys()
    history = json.loads((folder / "history.json").read_text())
    assert [epoch["step"] for epoch in history] == [4, 8]
    raw, averaged = (keras.models.load_model(folder / name) for name in ("model.keras", "model_ema.keras"))
    for model, which in ((raw, "last"), (averaged, "ema")):
        for a, b in zip(model.get_weights(), load_run(folder, which).get_weights()):
            np.testing.assert_array_equal(a, b)
    best = keras.models.load_model(folder / "best.keras").get_weights()
    for a, b in zip(best, load_run(folder).get_weights()):
        np.testing.assert_array_equal(a, b)


def test_a_run_is_one_training_for_callbacks(whole):
    """The figures of each step are there at its end, and the means of training are the same."""
    _, logs, recorder = whole
    epochs = [["epoch 0", 0, 1, 2, 3, "end of 0"], ["epoch 1", 0, 1, 2, 3, "end of 1"]]
    assert recorder.seen == ["begin", *epochs[0], *epochs[1], "end"]
    assert len(recorder.batches) == 8
    for means, logged in recorder.batches:
        assert means == pytest.approx(logged)
    assert {"loss", "accuracy", "val_accuracy", "val_robust_accuracy", "ema_robust_accuracy"} <= recorder.logs[0].keys()
    assert recorder.logs[1] == {name: value for name, value in logs.items() if name not in ("epoch", "step")}


def alone(module, *arguments):
    """A program that finds no framework but that of the backend, nor KerasCV, run to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": tiny.BACKEND}
    command = [sys.executable, "-m", "tests.one_framework", module, *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.skipif(tiny.BACKEND != "torch", reason="one backend without TensorFlow is enough")
def test_from_files_to_the_report_without_tensorflow(tmp_path):
    """Heavy augmentation, workers, validation, models, the command that evaluates, its page with charts."""
    done = alone("tests.recipes.alone", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "pip install" not in done.stdout + done.stderr
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<svg" in page
    assert (tmp_path / "report" / "report.md").is_file()


@pytest.mark.slow
def test_killed_process_goes_on_bit_for_bit(tmp_path, source, whole):
    """SIGKILL in the middle of the second epoch, within a window of accumulation; with one framework alone."""
    done = alone("tests.recipes.tiny", tmp_path / "run", source, "7")
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert _last(tmp_path / "run")[0].step == 6
    train(tiny.recipe(source), tmp_path / "run", verbose=False)
    _assert_same(tmp_path / "run", whole[0])


@pytest.mark.parametrize("step", [3, pytest.param(4, marks=pytest.mark.once)])
def test_told_to_end_it_saves_and_goes_on(tmp_path, source, whole, step):
    """SIGTERM in the first epoch and at its last step, where no checkpoint is due: exit code 75, and nothing lost."""
    recipe = tiny.recipe(source, "checkpoints.every_steps=none")
    tiny.at_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted) as caught:
        train(recipe, tmp_path, verbose=False)
    assert caught.value.code == 75
    assert signal.getsignal(signal.SIGTERM) is before
    assert _last(tmp_path)[0].step == step
    train(recipe, tmp_path, verbose=False)
    _assert_same(tmp_path, whole[0])


def failing_at(function, call):
    """The function, but for one of its calls, counted from 0."""
    calls = iter(range(100))

    def failing(*arguments, **options):
        if next(calls) == call:
            raise OSError("the disk has gone")
        return function(*arguments, **options)

    return failing


@pytest.mark.once
@pytest.mark.parametrize(
    ("of", "name", "call", "saved"),
    [(TrainPipeline, "batch", 3, 3), (keras.Model, "_compute_loss", 2, 0)],
)
def test_what_fails_after_a_step_takes_no_checkpoint_along(tmp_path, source, monkeypatch, of, name, call, saved):
    """On PyTorch a batch is read before the step before it is looked after; a step that fails is none."""
    monkeypatch.setattr(of, name, failing_at(getattr(of, name), call))
    with pytest.raises(OSError, match="the disk has gone"):
        train(tiny.recipe(source, "checkpoints.every_steps=3"), tmp_path, verbose=False)
    assert _last(tmp_path)[0].step == saved


@pytest.mark.once
def test_damaged_and_foreign_checkpoints_are_passed_over(tmp_path, source, whole, capsys):
    recipe = tiny.recipe(source, "checkpoints.keep_last=9")
    train(recipe, tmp_path, verbose=False)
    folder = tmp_path / "checkpoints"
    for path in folder.iterdir():
        if path.name in ("step-000000007.safetensors", "step-000000008.safetensors"):
            path.write_bytes(path.read_bytes()[:-1000])
    damaged = bytearray((folder / "step-000000006.safetensors").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (folder / "step-000000006.safetensors").write_bytes(damaged)
    info = checkpoints.peek(folder / "step-000000004.safetensors").info
    arrays = checkpoints.read(folder / "step-000000004.safetensors")
    checkpoints.write(folder / "step-000000005.safetensors", arrays, 5, {**info, "fingerprint": "other"})
    train(recipe, tmp_path)
    said = capsys.readouterr()
    assert "goes on at step 4" in said.out
    assert said.err.count("cut short") >= 2
    assert "step-000000006.safetensors is damaged" in said.err
    assert "step-000000005.safetensors is of another recipe" in said.err
    _assert_same(tmp_path, whole[0])
    with pytest.raises(ValueError, match=r"another: training.learning_rate=0.001, not 0.01"):
        train(tiny.recipe(source, "training.learning_rate=0.01"), tmp_path, verbose=False)


@pytest.mark.parametrize("rollbacks", [pytest.param(0, marks=pytest.mark.once), 1])
def test_loss_that_is_not_finite(tmp_path, source, rollbacks):
    """Stops with an explanation, and no checkpoint holds the damage; or goes on from before it, as often as it may."""
    action = ["guard.action=stop"] if not rollbacks else ["guard.action=rollback", f"guard.rollbacks={rollbacks}"]
    recipe = tiny.recipe(source, "training.learning_rate=1e30", "training.warmup_epochs=0", *action)
    with pytest.raises(TrainingBroken, match=r"not finite|is nan|is inf"):
        train(recipe, tmp_path, verbose=False)
    for checkpoint in checkpoints.CheckpointFolder(tmp_path / "checkpoints").readable():
        assert not checkpoints.not_finite(checkpoints.read(checkpoint.path))
    assert _last(tmp_path)[0].info["rollbacks"] == rollbacks


@pytest.mark.once
def test_global_state_is_put_back(tmp_path, source):
    keras.utils.set_random_seed(7)
    expected = random.random(), np.random.random()  # noqa: NPY002
    keras.utils.set_random_seed(7)
    model = build_model(tiny.recipe(source, "training.precision=mixed_bfloat16"), 3)
    assert model.layers[2].compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    assert (random.random(), np.random.random()) == expected  # noqa: NPY002


def test_validation_images_from_elsewhere(tmp_path, source):
    """Then nothing of the source is held out; other classes are refused by name."""
    recipe = tiny.recipe(source, f"data.validation={source}")
    run = TrainingRun(recipe, tmp_path / "run", (), Distribution(), verbose=False)
    assert {split: len(images) for split, images in run.sources.items()} == {"train": 60, "val": 60}
    run = TrainingRun(tiny.recipe(source), tmp_path / "run", (), Distribution(), verbose=False)
    assert {split: len(images) for split, images in run.sources.items()} == {"train": 48, "val": 12}
    with pytest.raises(ValueError, match=r"data\.source must have the same classes .*images.npz and photo_crops"):
        TrainingRun(tiny.recipe(source, "data.validation=photo_crops"), tmp_path / "run", (), Distribution())


def foreign(path, classes=3):
    """A model of other origin: 8-bit pixels, a softmax."""
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )
    net.save(path)
    return net


@pytest.mark.once
def test_a_model_of_other_origin(tmp_path, source, capsys):
    """Its head is kept where the classes are as many, it is tried before training, and it comes back from its run."""
    net = foreign(tmp_path / "net.keras")
    recipe = tiny.recipe(source, f"model.name={tmp_path / 'net.keras'}", "training.epochs=1")
    model = build_model(recipe, 3)
    x = np.random.default_rng(0).random((2, 16, 16, 3), "float32")
    softmax = keras.ops.convert_to_numpy(keras.ops.softmax(model(x)))
    given = keras.ops.convert_to_tensor(255 * x)
    np.testing.assert_allclose(softmax, keras.ops.convert_to_numpy(net(given)), atol=1e-5)
    assert build_model(recipe, 5).output_shape == (None, 5)
    train(recipe, tmp_path / "run")
    assert "before training: clean " in capsys.readouterr().out
    again, best = load_run(tmp_path / "run"), keras.saving.load_model(tmp_path / "run" / "best.keras")
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(each(x)) for each in (again, best)))


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:Zero gradients")
def test_a_run_that_learns_nothing_says_what_to_do(tmp_path, source, capsys):
    """One answer for all, which no step changes."""
    net = foreign(tmp_path / "net.keras")
    net.layers[-1].kernel.assign(0.0 * net.layers[-1].kernel)
    net.save(tmp_path / "net.keras")
    still = ("training.epochs=1", "training.learning_rate=0", "training.final_learning_rate=0")
    train(tiny.recipe(source, f"model.name={tmp_path / 'net.keras'}", *still), tmp_path / "run")
    said = capsys.readouterr()
    assert "no more than one answer for all" in said.err
    assert "nothing was learned. Start from weights" in said.out


def test_classes_in_another_order_are_refused(tmp_path, source):
    """Of a model that knows its classes, and of a run; a new head has none."""
    own = kr.models.create(tiny.NAME, 3, 16)
    kr.models.set_class_names(own, ["1", "0", "2"])
    own.save(tmp_path / "own.keras")
    recipe = tiny.recipe(source, f"model.name={tmp_path / 'own.keras'}")
    with pytest.raises(ValueError, match=r"start\.new must be head .*own\.keras has 1, 0, 2, the data have 0, 1, 2"):
        train(recipe, tmp_path / "run", verbose=False)
    guards.check_classes(("a", "b"), ("a", "b"), "")
    guards.check_classes(None, ("a", "b"), "")
    with pytest.raises(ValueError, match=r"start\.weights has b, a, the data have a, b"):
        guards.check_classes(("b", "a"), ("a", "b"), "start.weights")


def test_images_on_both_sides_are_warned_of(tmp_path, capsys):
    """Before the first step, with their number."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for name in ("cat", "dog"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                path = tmp_path / "data" / split / name / f"{i}.png"
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    shutil.copy(tmp_path / "data/train/cat/3.png", tmp_path / "data/val/dog/copy.png")
    recipe = tiny.recipe(tmp_path / "data")
    run = TrainingRun(recipe, tmp_path / "run", (), Distribution())
    run._look_at_start()
    assert "1 of the 9 validation images are training images, too" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["model.pixels=0..1", "model.name=applications:X", "model.name=x.keras"])
def test_models_that_cannot_be_adapted(source, setting):
    more = ["model.drop_path_rate=0.1"] if setting == "model.name=x.keras" else []
    with pytest.raises(
        ValueError, match=r"model\.pixels is for|applications: with one of|must be left out for x\.keras"
    ):
        build_model(tiny.recipe(source, setting, *more), 3)
