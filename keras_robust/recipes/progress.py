"""Progress of a training run: how fast it is, and the line that says so."""

import statistics
import time
from collections import deque
from collections.abc import Mapping
from typing import IO

from keras_robust.progress import ProgressLine, duration

WINDOW = 50  # intervals between two reports over which the speed is measured
EPOCH = {
    "loss": "loss {:.3f}",
    "accuracy": "accuracy {:.1%}",
    "attack_gain": "attack gains {:.3f}",
    "val_accuracy": "| clean {:.1%}",
    "val_robust_accuracy": "robust {:.1%}",
    "ema_accuracy": "| averaged: clean {:.1%}",
    "ema_robust_accuracy": "robust {:.1%}",
}


class TrainingProgress:
    """Epoch, step, loss, accuracy, images per second, input wait and the time left.

    Args:
        epochs, steps_per_epoch: of the whole run.
        batch_size: images per step.
        stream: where to; None for nowhere.
    """

    def __init__(self, epochs: int, steps_per_epoch: int, batch_size: int, stream: IO[str] | None) -> None:
        self.epochs, self.steps_per_epoch, self.batch_size = epochs, steps_per_epoch, batch_size
        self._line = ProgressLine(stream)
        self._rates: deque[float] = deque(maxlen=WINDOW)
        self.restart(0)

    def restart(self, step: int) -> None:
        """Forget the time since the last report: training was interrupted, by validation say."""
        self._time, self._step = time.monotonic(), step

    def due(self) -> bool:
        return self._line.due()

    def seconds_per_step(self) -> float | None:
        """Median over the last reports, or None before the first."""
        return statistics.median(self._rates) if self._rates else None

    def measure(self, step: int) -> None:
        """Note that training has come to `step`."""
        now = time.monotonic()
        if step > self._step:
            self._rates.append((now - self._time) / (step - self._step))
        self._time, self._step = now, step

    def report(self, step: int, logs: Mapping[str, float], wait: float | None = None) -> None:
        """Show the line. `wait`: share of the time spent waiting for input."""
        seconds = self.seconds_per_step()
        epoch, place = divmod(max(step - 1, 0), self.steps_per_epoch)
        digits = len(str(self.steps_per_epoch))
        parts = [f"epoch {epoch + 1:>{len(str(self.epochs))}}/{self.epochs}"]
        parts.append(f"step {place + 1:>{digits}}/{self.steps_per_epoch}")
        parts.append(f"loss {logs.get('loss', float('nan')):.3f}")
        if "accuracy" in logs:
            parts.append(f"accuracy {logs['accuracy']:.1%}")
        if seconds:
            parts.append(f"{self.batch_size / seconds:.3g} images/s")
            if wait is not None:
                parts.append(f"input wait {wait:.0%}")
            parts.append(f"left {duration((self.epochs * self.steps_per_epoch - step) * seconds)}")
        self._line.show("  ".join(parts))

    def epoch(self, number: int, logs: Mapping[str, float]) -> None:
        """Print what an epoch came to, in a line of its own."""
        parts = [text.format(logs[name]) for name, text in EPOCH.items() if logs.get(name) is not None]
        self.say(f"epoch {number:>{len(str(self.epochs))}}/{self.epochs}  " + "  ".join(parts))

    def say(self, message: str) -> None:
        self._line.say(message)

    def close(self) -> None:
        self._line.close()
