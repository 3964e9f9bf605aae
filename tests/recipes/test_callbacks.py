"""What happens between the steps of an epoch, without a training."""

from types import SimpleNamespace

import pytest

from keras_robust.backend.distribution import Distribution
from keras_robust.data.input_clock import InputClock
from keras_robust.recipes import TrainingBroken
from keras_robust.recipes.callbacks import CheckpointTimer, StepWatcher, StopSignal
from keras_robust.recipes.progress import TrainingProgress

pytestmark = pytest.mark.once


def watching(guarded):
    """The watcher of an epoch of six steps whose loss is no number, and the steps that it has saved, one in two."""
    distribution, saved = Distribution(), []
    watcher = StepWatcher(
        start=0,
        end=6,
        first=0,
        metrics={},
        progress=TrainingProgress(1, 6, 8, None),
        clock=InputClock(),
        timer=CheckpointTimer(2, 0.0, distribution),
        stop=StopSignal(distribution),
        guarded=guarded,
        on_log=lambda step, means: None,
        save=saved.append,
    )
    watcher._model = SimpleNamespace(training_means=lambda: {"loss": float("nan")})
    return watcher, saved


def test_a_run_without_guards_goes_on_whatever_its_loss():
    watcher, saved = watching(guarded=False)
    for batch in range(6):
        watcher.on_train_batch_begin(batch)
    watcher.on_epoch_end(0)
    assert saved == [2, 4]


def test_what_is_saved_has_been_looked_at():
    """Also at a step at which the loss is not due to be shown."""
    watcher, saved = watching(guarded=True)
    with pytest.raises(TrainingBroken, match="nan at step 2"):
        watcher.after_step(1)
    assert not saved
