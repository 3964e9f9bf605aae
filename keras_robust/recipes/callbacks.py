"""Callbacks of a training run: what happens between the steps of `fit`, and the signal that ends a run."""

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

import keras

from keras_robust.backend.distribution import Distribution
from keras_robust.data.input_clock import InputClock
from keras_robust.recipes import checkpoints
from keras_robust.recipes.guards import Preempted, check_finite
from keras_robust.recipes.progress import TrainingProgress

AGREE_EVERY = 10  # steps between two points at which several processes ask one another
LOG_EVERY = 50  # steps between two points of TensorBoard and two looks at the loss; each waits for the device once


class StopSignal:
    """SIGTERM: whether it has come, while inside `with`; the processes of a distributed run agree on the step.

    A process alone looks after every step, several every `AGREE_EVERY` steps.
    """

    def __init__(self, distribution: Distribution) -> None:
        self.distribution = distribution
        self._here = self._anywhere = False

    @property
    def received(self) -> bool:
        """Whether it has come; of several processes, to any of them when they last asked one another."""
        return self._here if self.distribution.processes == 1 else self._anywhere

    def __enter__(self) -> "StopSignal":
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        if self._main:
            signal.signal(signal.SIGTERM, self._before)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._here = True

    def asked(self, step: int) -> bool:
        if self.distribution.processes > 1 and step % AGREE_EVERY == 0:
            self._anywhere = self.distribution.any(self._here)
        return self.received


class CheckpointTimer:
    """Timer of checkpoints, by steps or by the clock of the process that writes."""

    def __init__(self, every_steps: int | None, every_minutes: float, distribution: Distribution) -> None:
        self.every_steps, self.seconds, self.distribution = every_steps, 60.0 * every_minutes, distribution
        self.restart()

    def restart(self) -> None:
        self._saved = time.monotonic()

    def due(self, step: int) -> bool:
        if self.every_steps is not None and step % self.every_steps == 0:
            return True
        late = self.seconds > 0 and time.monotonic() - self._saved >= self.seconds
        if self.distribution.processes == 1:
            return late
        return step % AGREE_EVERY == 0 and self.distribution.any(late and self.distribution.writes)


class StepWatcher(keras.callbacks.Callback):
    """Reports, checks, logs and checkpoints between the steps of one epoch.

    A step is looked after when the next one begins, the last when the epoch ends: for a callback with
    `on_train_batch_end` Keras would fetch the logs of every step, and the device then wait for the next batch.

    Args:
        start: step of the run before the first of this `fit`.
        end: last step of the epoch: whatever is due there waits until the epoch is in the run's history.
        first: number within its epoch of the first step of this `fit`: not 0 where a run goes on.
        metrics: of the steps before that in the epoch; see `checkpoints.metrics_of`.
        progress, clock, timer, stop: of the run.
        guarded: whether a loss that is not finite raises.
        on_log: function of a step and the means since the last time, called every `LOG_EVERY` steps.
        save: function of a step that writes a checkpoint.

    Attributes:
        step: that the run has come to.
    """

    def __init__(
        self,
        start: int,
        end: int,
        first: int,
        metrics: Mapping[str, Sequence[Any]],
        *,
        progress: TrainingProgress,
        clock: InputClock,
        timer: CheckpointTimer,
        stop: StopSignal,
        guarded: bool,
        on_log: Callable[[int, Mapping[str, float]], None],
        save: Callable[[int], None],
    ) -> None:
        super().__init__()
        self.step = self.start = start
        self._end, self._first, self._metrics = end, first, metrics
        self._progress, self._clock, self._timer, self._stop = progress, clock, timer, stop
        self._guarded, self._on_log, self._save = guarded, on_log, save
        self._window = MeanWindow()
        self._begun = -1  # the last batch that has begun

    def input_wait(self) -> float | None:
        return self._clock.share(self._progress.seconds_per_step())

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Gives the metrics back what the steps before brought, which Keras resets: means are of whole epochs."""
        if self._metrics:
            checkpoints.set_metrics(self.model, self._metrics)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if batch > 0:
            self.after_step(batch - 1)
        self._begun = batch

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self._begun >= 0:
            self.after_step(self._begun)

    def on_failure(self) -> None:
        """Looks after the last step where it is done, and the batch after it could not be read.

        Only where Keras reads a batch before it begins its step: elsewhere the step before has been looked after.
        """
        if self.model.reads_first and int(self.model.counter) == self.step + 1:
            self.after_step(self._begun)

    def after_step(self, batch: int) -> None:
        """What is to be done when batch number `batch` of this `fit` has been trained on."""
        step = self.step = self.start + batch + 1
        due, log = self._progress.due(), step % LOG_EVERY == 0
        # Several processes look at the same steps: to read their means is a message, and one could break off alone.
        look = due if self._stop.distribution.processes == 1 else step % AGREE_EVERY == 0
        seen = self.model.training_means() if batch == 0 or look or log else None
        if batch == 0:  # which compiles
            self._progress.restart(step)
            self._clock.reset()
        if seen is not None:
            self._progress.measure(step)
            if self._guarded:
                check_finite(seen, step)
            if due:
                self._progress.report(step, seen, self.input_wait())
        if seen is not None and log:
            self._on_log(step, self._window.values(seen, self._first + batch + 1))
        stopped = self._stop.asked(step)
        if step == self._end:
            return
        if stopped:
            self._save(step)
            raise Preempted
        if self._timer.due(step):
            if seen is None and self._guarded:
                check_finite(self.model.training_means(), step)
            self._save(step)


class ValidationStop(keras.callbacks.Callback):
    """Ends validation at once when the process is told to."""

    def __init__(self, stop: StopSignal) -> None:
        super().__init__()
        self._stop = stop

    def on_test_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self._stop.asked(batch):
            self.model.stop_evaluating = True


class BatchForwarder(keras.callbacks.Callback):
    """Hands the batches of one `fit` on to the user's callbacks, for which the whole run is one training.

    Args:
        callbacks: the user's.
        first: number within its epoch of the first batch of this `fit`.
    """

    def __init__(self, callbacks: keras.callbacks.CallbackList, first: int) -> None:
        super().__init__()
        self._callbacks, self._first = callbacks, first

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._callbacks.on_train_batch_begin(self._first + batch, logs)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._callbacks.on_train_batch_end(self._first + batch, logs)


class MeanWindow:
    """Means over the steps since the last look, from Keras' means over the epoch."""

    def __init__(self) -> None:
        self._count, self._means = 0, {}  # type: int, Mapping[str, float]

    def values(self, means: Mapping[str, float], count: int) -> dict[str, float]:
        fresh = count - self._count
        window = {
            name: (value * count - self._means.get(name, 0.0) * self._count) / fresh for name, value in means.items()
        }
        self._count, self._means = count, means
        return window
