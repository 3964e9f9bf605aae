"""What happens between the steps of `fit`: reports, checks, checkpoints."""

import signal
import threading
import time

import keras

from keras_robust.recipes.guards import Preempted, check_finite

AGREE_EVERY = 10  # steps between two points at which several processes ask one another
LOG_EVERY = 50  # steps between two points of TensorBoard and two looks at the loss; each waits for the device once


class Between(keras.callbacks.Callback):
    """Watches one epoch of a `Run` from step `start` on, and saves when it is time."""

    def __init__(self, run, start):
        super().__init__()
        self.run, self.start = run, start
        self.window = Window()

    def on_train_batch_end(self, batch, logs=None):
        run, step = self.run, self.start + batch + 1
        run.step = step
        if batch == 0:  # which compiles
            run.progress.restart(step)
            run.clock.reset()
        seen = None
        log = step % LOG_EVERY == 0
        if log or run.progress.due():
            seen = {name: float(value) for name, value in (logs or {}).items()}
            run.progress.measure(step)
            # Where processes look at other times, one would break off alone.
            if run.recipe.guard.action != "off" and (log or run.distribution.processes == 1):
                check_finite(seen, step)
            run.progress.report(step, seen, run.input_wait())
        if log:
            run.log_step(step, self.window.values(seen, batch + 1))
        if run.stop.asked(step):
            run.save_now()
            raise Preempted
        if run.due_for_checkpoint(step):
            if seen is None:
                check_finite({name: float(value) for name, value in (logs or {}).items()}, step)
            run.save_now()


class InterruptedValidation(keras.callbacks.Callback):
    """Ends validation at once when the process is told to."""

    def __init__(self, run):
        super().__init__()
        self.run = run

    def on_test_batch_end(self, batch, logs=None):
        if self.run.stop.asked(batch):
            self.model.stop_evaluating = True


class Window:
    """Means over the steps since the last look, from Keras' means over the epoch."""

    def __init__(self):
        self._count, self._means = 0, {}

    def values(self, means, count):
        fresh = count - self._count
        window = {
            name: (value * count - self._means.get(name, 0.0) * self._count) / fresh for name, value in means.items()
        }
        self._count, self._means = count, means
        return window


class StopSignal:
    """Whether SIGTERM has come, while inside `with`; the processes of a distributed run agree on the step.

    A process alone looks after every step, several every `AGREE_EVERY` steps.
    """

    def __init__(self, distribution):
        self.distribution = distribution
        self._here = self._anywhere = False

    @property
    def received(self):
        """Whether it has come; of several processes, to any of them when they last asked one another."""
        return self._here if self.distribution.processes == 1 else self._anywhere

    def __enter__(self):
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *error):
        if self._main:
            signal.signal(signal.SIGTERM, self._before)

    def _receive(self, number, frame):
        self._here = True

    def asked(self, step):
        if self.distribution.processes > 1 and step % AGREE_EVERY == 0:
            self._anywhere = self.distribution.any(self._here)
        return self.received


class Timer:
    """Whether it is time for a checkpoint, by steps or by the clock of the process that writes."""

    def __init__(self, every_steps, every_minutes):
        self.every_steps, self.seconds = every_steps, 60.0 * every_minutes
        self.restart()

    def restart(self):
        self._saved = time.monotonic()

    def due(self, step, distribution):
        if self.every_steps is not None and step % self.every_steps == 0:
            return True
        late = self.seconds > 0 and time.monotonic() - self._saved >= self.seconds
        if distribution.processes == 1:
            return late
        return step % AGREE_EVERY == 0 and distribution.any(late and distribution.writes)
