"""One line that tells how a run is doing."""

import statistics
import sys
import time
from collections import deque

WINDOW = 50  # intervals between two reports over which the speed is measured
QUIET_SECONDS = 30.0  # between two lines where there is no terminal to rewrite one


class Progress:
    """Prints epoch, step, loss, accuracy, images per second, input wait and the time left.

    On a terminal one line is rewritten, at most twice a second; elsewhere a line is printed every 30 seconds.

    Args:
        epochs, steps_per_epoch: of the whole run.
        batch_size: images per step.
        stream: where to; None for nowhere.
    """

    def __init__(self, epochs, steps_per_epoch, batch_size, stream=sys.stdout):
        self.epochs, self.steps_per_epoch, self.batch_size = epochs, steps_per_epoch, batch_size
        self.stream = stream
        self.interactive = bool(stream and stream.isatty())
        self.interval = 0.5 if self.interactive else QUIET_SECONDS
        self._rates = deque(maxlen=WINDOW)
        self._width = 0
        self.restart(0)

    def restart(self, step):
        """Forget the time since the last report: training was interrupted, by validation say."""
        self._time, self._step = time.monotonic(), step

    def due(self):
        return time.monotonic() - self._time >= self.interval

    def seconds_per_step(self):
        """Median over the last reports, or None before the first."""
        return statistics.median(self._rates) if self._rates else None

    def measure(self, step):
        """Note that training has come to `step`."""
        now = time.monotonic()
        if step > self._step:
            self._rates.append((now - self._time) / (step - self._step))
        self._time, self._step = now, step

    def report(self, step, logs, wait=None):
        """Print the line. `logs`: floats by name; `wait`: share of the time spent waiting for input."""
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
        self._print("  ".join(parts), end=not self.interactive)

    def epoch(self, number, logs):
        """Print what an epoch came to, in a line of its own."""
        names = {
            "loss": "loss {:.3f}",
            "accuracy": "accuracy {:.1%}",
            "attack_gain": "attack gains {:.3f}",
            "val_accuracy": "| clean {:.1%}",
            "val_robust_accuracy": "robust {:.1%}",
            "ema_accuracy": "| averaged: clean {:.1%}",
            "ema_robust_accuracy": "robust {:.1%}",
        }
        parts = [text.format(logs[name]) for name, text in names.items() if logs.get(name) is not None]
        self._print(f"epoch {number:>{len(str(self.epochs))}}/{self.epochs}  " + "  ".join(parts), end=True)

    def say(self, message):
        self._print(message, end=True)

    def _print(self, line, end):
        if self.stream is None:
            return
        if self.interactive:
            self.stream.write("\r" + line.ljust(self._width) + ("\n" if end else ""))
            self._width = 0 if end else len(line)
        else:
            self.stream.write(line + "\n")
        self.stream.flush()


def duration(seconds):
    """Seconds in words: "2 d 3 h", "1 h 5 min", "40 s"."""
    seconds = max(round(seconds), 0)
    for size, unit, smaller, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // smaller} {small_unit}"
    return f"{seconds} s"
