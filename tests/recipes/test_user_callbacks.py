"""The user's callbacks of a run: they see one training, can stop it, and a stopped run stays so."""

import json
import os
import signal

import keras
import pytest

from keras_robust.recipes import Preempted, train
from tests.recipes import tiny

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny.images(tmp_path_factory.mktemp("data") / "images.npz")


def test_an_interrupted_run_goes_on_in_its_epoch(tmp_path, source, monkeypatch):
    from keras_robust.recipes import callbacks

    monkeypatch.setattr(callbacks.StepWatcher, "after_step", callbacks.StepWatcher.after_step)
    tiny.at_step(6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Preempted):
        train(tiny.recipe(source), tmp_path, callbacks=[tiny.Recorder()], verbose=False)
    monkeypatch.undo()
    recorder = tiny.Recorder()
    train(tiny.recipe(source), tmp_path, callbacks=[recorder], verbose=False)
    assert recorder.seen == ["begin", "epoch 1", 2, 3, "end of 1", "end"]


def test_early_stopping_ends_the_run_for_good(tmp_path, source):
    def stopping():
        return keras.callbacks.EarlyStopping("val_robust_accuracy", mode="max", patience=0, min_delta=2.0)

    recipe = tiny.recipe(source, "training.epochs=5")
    train(recipe, tmp_path, callbacks=[stopping()], verbose=False)
    history = json.loads((tmp_path / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history] == [1, 2]  # Keras never stops after the first
    assert (tmp_path / "best.keras").exists()
    written = (tmp_path / "history.json").read_bytes()
    recorder = tiny.Recorder()
    train(recipe, tmp_path, callbacks=[recorder], verbose=False)
    assert recorder.seen == ["begin", "end"]
    assert (tmp_path / "history.json").read_bytes() == written


def test_stopping_within_an_epoch(tmp_path, source):
    class Enough(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    train(tiny.recipe(source), tmp_path, callbacks=[Enough()], verbose=False)
    (epoch,) = json.loads((tmp_path / "history.json").read_text())
    assert (epoch["epoch"], epoch["step"]) == (1, 2)
    assert "val_robust_accuracy" in epoch
