"""Minimal-norm attacks: their base, which looks for the nearest misclassified point instead of one in a ball."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from keras_robust.attacks.base import Attack, even_chunk
from keras_robust.attacks.problem import Found, Problem
from keras_robust.attacks.result import AttackResult
from keras_robust.attacks.suite import AttackSuite
from keras_robust.batch_checks import check_batch, check_target
from keras_robust.checks import check_choice, check_count
from keras_robust.norms import choose
from keras_robust.threat import ThreatModel
from keras_robust.types import Tensor

BATCH_SIZE = 256


class Nearest(NamedTuple):
    """The nearest misclassified point of each image so far, and its distance (batch,), inf where there is none."""

    x: Any
    distance: Any

    def merge(self, x: Tensor, distance: Tensor, correct: Tensor, counts: Any = True) -> "Nearest":
        """Example by example the nearer of two misclassified points; `x` is out of the question unless `counts`."""
        nearer = ops.logical_and(ops.equal(correct, 0.0), distance < self.distance)
        nearer = nearer if counts is True else ops.logical_and(nearer, counts)
        return Nearest(choose(nearer, x, self.x), ops.where(nearer, distance, self.distance))


class MinimalNormAttack(Attack):
    """Looks for the smallest perturbation that the model misclassifies, image by image.

    Subclasses write `begin` and `advance`, whose states have the `Nearest` in their field `nearest`.

    Calling it, `attack(model, x, y)`, returns an `AttackResult`: `.x_adv`, `.distances` (0 where the image is
    misclassified as it is, inf where nothing was found), `.propagations`, and the robust accuracy at any radius,
    `.robust_at(eps)`. With `target`, a class or class indices (batch,), it looks for the nearest point that the model
    takes for that class. What is found is confirmed by the uncompiled model in float32.

    Args:
        threat: a norm's name, for the nearest point at any distance; or a `ThreatModel`: a run then ends with the
            first point in its ball.
        n_iter: gradients per image.
        seed: as of `Attack`.
    """

    minimises_norm = True
    supported_norms: tuple[str, ...] = ("Linf", "L2", "L1", "L0", "L0-pixels")

    def __init__(self, threat: ThreatModel | str, n_iter: int, loss: str, seed: int = 0) -> None:
        if isinstance(threat, str):
            threat = ThreatModel(check_choice("threat", threat, self.supported_norms), None)
        super().__init__(threat, loss, seed=seed, returns="misclassified")
        self.n_iter = check_count("n_iter", n_iter)
        self.evaluations = self.n_iter
        self.chunk = even_chunk(self.evaluations)

    def __call__(self, model: Any, x: Any, y: Any, target: Any = None, batch_size: int = BATCH_SIZE) -> AttackResult:
        check_count("batch_size", batch_size)
        x, y = check_batch(model, x, y)
        target = None if target is None else check_target(model, x, target)
        return AttackSuite(model, self.threat, {self.name: self}, batch_size).result(x, y, target)

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    def run(self, problem: Problem) -> Found:
        state, _ = self.iterate(problem, 0, self.begin(problem), self.n_iter)
        return self.outcome(problem, state)

    def counts(self, i: Any) -> Any:
        """Whether evaluation `i` belongs to the run; batches go on until all of theirs have ended."""
        return True if isinstance(i, int) else i < self.n_iter

    def misclassified(self, problem: Problem, state: Any) -> Tensor:
        return state.nearest.distance <= problem.eps

    def outcome(self, problem: Problem, state: Any) -> Found:
        x, distance = state.nearest
        inside = self.misclassified(problem, state)
        return Found(choose(inside, x, problem.x), -distance, ops.logical_not(inside))

    def arguments(self) -> dict[str, Any]:
        return {"threat": self.threat, "n_iter": self.n_iter, "seed": self.seed}


def farthest(problem: Problem) -> Tensor:
    """The norm of the largest perturbation that the box allows each image, (batch,)."""
    return problem.norm.of(ops.maximum(problem.x, 1.0 - problem.x))


def annealed(i: Any, n_iter: int, first: float, last: float) -> Any:
    """A value that falls along half a cosine from `first`, at i = 0, towards `last`, which i = n_iter would reach."""
    cosine: Callable = math.cos if isinstance(i, int) else ops.cos
    i = i if isinstance(i, int) else ops.cast(i, "float32")
    return last + (first - last) * 0.5 * (1.0 + cosine(i * (math.pi / n_iter)))
