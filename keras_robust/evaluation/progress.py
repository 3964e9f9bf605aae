"""A progress line with the accuracy so far and the time that is left."""

import sys
import threading
import time
from collections import defaultdict

SECONDS_BETWEEN_LINES = 30  # where the output is a file, not a terminal
BACKWARD = 3  # a gradient in units of a forward pass


class Progress:
    """Counts the images that each attack still has to meet, and what one costs.

    Args:
        cells: (resolution, threat model, attack's name) -> forward passes per image, at most.
        n_examples: resolution -> images that each attack meets in this run.
        workers: batches attacked at a time.
        verbose: whether to print.

    The time left assumes that an attack costs as much per image as it did so far, or per pixel as at other
    resolutions, or per forward pass as other attacks.
    """

    def __init__(self, cells, n_examples, workers=1, verbose=True):
        self._work = {cell: passes * cell[0] ** 2 for cell, passes in cells.items()}
        self._n_examples, self._workers = n_examples, workers
        self._seen, self._correct = defaultdict(int), defaultdict(int)
        self._timed, self._seconds = defaultdict(int), defaultdict(float)
        self._verbose, self._file = verbose, sys.stderr
        self._terminal = self._file.isatty()
        self._printed, self._width, self._lock = 0.0, 0, threading.Lock()

    def clean(self, resolution, correct):
        """A batch has been classified without an attack; `correct` booleans (n,)."""
        with self._lock:
            self._seen[resolution] += len(correct)
            self._correct[resolution] += int(correct.sum())

    def done(self, cell, correct, seconds, show=True):
        """A batch has met an attack, in `seconds`, after which the images `correct`, booleans (n,), are left."""
        with self._lock:
            self._seen[cell] += len(correct)
            self._correct[cell] += int(correct.sum())
            self._timed[cell] += len(correct)
            self._seconds[cell] += seconds
            if show and self._verbose:
                self._show(cell)

    def seconds_left(self, cell):
        """Estimated seconds that one attack still takes, 0 while nothing is known."""
        images_left = self._n_examples[cell[0]] - self._seen[cell]
        known = [other for other in self._work if self._timed[other]]
        same = [other for other in known if other[1:] == cell[1:]]
        best = [cell] if cell in known else same or known
        work = sum(self._timed[other] * self._work[other] for other in best)
        if not work:
            return 0.0
        seconds_per_work = sum(self._seconds[other] for other in best) / work
        return seconds_per_work * self._work[cell] * images_left / self._workers

    def close(self):
        """End the line."""
        if self._width:
            print(file=self._file)

    def _show(self, cell):
        resolution, threat, name = cell
        now = time.monotonic()
        finished = all(self._seen[each] >= self._n_examples[each[0]] for each in self._work)
        if not self._terminal and not finished and now - self._printed < SECONDS_BETWEEN_LINES:
            return
        self._printed = now
        total = sum(work * self._n_examples[each[0]] for each, work in self._work.items())
        share = sum(self._work[each] * self._seen[each] for each in self._work) / total
        left = sum(self.seconds_left(each) for each in self._work)
        line = (
            f"[{'=' * int(20 * share):20}] {100 * share:3.0f} % | {resolution} px {threat} {name}: "
            f"clean {self._accuracy(resolution)}, robust {self._accuracy(cell)} of {self._seen[cell]} | "
            f"{clock(left)} left, {clock(self.seconds_left(cell))} in this attack"
        )
        if self._terminal:
            print(f"\r{line:{self._width}}", end="", file=self._file, flush=True)
            self._width = max(self._width, len(line))
        else:
            print(line, file=self._file, flush=True)

    def _accuracy(self, key):
        return f"{100 * self._correct[key] / self._seen[key]:.1f} %" if self._seen[key] else "-"


def clock(seconds):
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def forward_passes(attack, num_classes):
    """What an attack spends on an image that it does not break, in forward passes, roughly."""
    passes = attack.evaluations if attack.evaluations > 1 else getattr(attack, "n_iter", 1)
    gradients = 1 if type(attack).__name__ == "Square" else BACKWARD
    return passes * gradients * attack.n_restarts * attack.n_targets(num_classes)
