"""Progress of an evaluation: the accuracy so far and the time that is left."""

import sys
import threading
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping
from typing import Any

import numpy as np

from keras_robust.progress import ProgressLine, duration
from keras_robust.threat import ThreatModel

Cell = tuple[int, ThreatModel, str]  # resolution, threat model, attack's name
BACKWARD = 3  # a gradient in units of a forward pass


class EvaluationProgress:
    """Counts the images that each attack still has to meet, and what one costs.

    Args:
        cells: (resolution, threat model, attack's name) -> forward passes per image, at most.
        n_examples: resolution -> images that each attack meets in this run.
        workers: batches attacked at a time.
        verbose: whether to print.
        sampled: cells whose attack meets a sample only, so that what is left after it is an upper bound.

    The time left assumes that an attack costs as much per image as it did so far, or per pixel as at other
    resolutions, or per forward pass as other attacks.
    """

    def __init__(
        self,
        cells: Mapping[Cell, float],
        n_examples: Mapping[int, int],
        workers: int = 1,
        verbose: bool = True,
        sampled: Collection[Cell] = (),
    ) -> None:
        self._sampled = sampled
        self._work = {cell: passes * cell[0] ** 2 for cell, passes in cells.items()}
        self._n_examples, self._workers = n_examples, workers
        self._seen: defaultdict[Hashable, int] = defaultdict(int)
        self._correct: defaultdict[Hashable, int] = defaultdict(int)
        self._timed: defaultdict[Hashable, int] = defaultdict(int)
        self._seconds: defaultdict[Hashable, float] = defaultdict(float)
        self._line, self._shown, self._lock = ProgressLine(sys.stderr if verbose else None), False, threading.Lock()

    def clean(self, resolution: int, correct: np.ndarray) -> None:
        """A batch has been classified without an attack; `correct` booleans (n,)."""
        with self._lock:
            self._seen[resolution] += len(correct)
            self._correct[resolution] += int(correct.sum())

    def done(self, cell: Cell, correct: np.ndarray, seconds: float, show: bool = True) -> None:
        """A batch has met an attack, in `seconds`, after which the images `correct`, booleans (n,), are left."""
        with self._lock:
            self._seen[cell] += len(correct)
            self._correct[cell] += int(correct.sum())
            self._timed[cell] += len(correct)
            self._seconds[cell] += seconds
            if show:
                self._show(cell)

    def classifying(self, name: str, resolution: int, batch: str) -> None:
        """A batch of other images is to be classified."""
        with self._lock:
            if self._line.due():
                self._line.show(f"{name.strip()} at {resolution} px: batch {batch}")

    def seconds_left(self, cell: Cell) -> float:
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

    def close(self) -> None:
        """End the line."""
        self._line.close()

    def _show(self, cell: Cell) -> None:
        resolution, threat, name = cell
        finished = all(self._seen[each] >= self._n_examples[each[0]] for each in self._work)
        if not self._line.is_terminal and self._shown and not finished and not self._line.due():
            return
        self._shown = True
        total = sum(work * self._n_examples[each[0]] for each, work in self._work.items())
        share = sum(self._work[each] * self._seen[each] for each in self._work) / total
        left = sum(self.seconds_left(each) for each in self._work)
        self._line.show(
            f"[{'=' * int(20 * share):20}] {100 * share:3.0f} % | {resolution} px {threat} {name}: "
            f"clean {self._accuracy(resolution)}, robust {'at most ' if cell in self._sampled else ''}"
            f"{self._accuracy(cell)} of {self._seen[cell]} | "
            f"{duration(left)} left, {duration(self.seconds_left(cell))} in this attack"
        )

    def _accuracy(self, key: Hashable) -> str:
        return f"{100 * self._correct[key] / self._seen[key]:.1f} %" if self._seen[key] else "-"


def forward_passes(attack: Any, num_classes: int) -> float:
    """What an attack spends on an image that it does not misclassify, in forward passes, roughly."""
    passes = attack.evaluations if attack.evaluations > 1 else getattr(attack, "n_iter", 1)
    gradients = 1 if type(attack).__name__ == "Square" else BACKWARD
    return passes * gradients * attack.n_restarts * attack.n_targets(num_classes)
