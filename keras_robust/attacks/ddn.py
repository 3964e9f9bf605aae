"""Decoupled Direction and Norm attack: steps along the gradient, then onto a sphere (Rony et al. 2019)."""

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_robust import random
from keras_robust.attacks.base import is_zero
from keras_robust.attacks.minimal import MinimalNormAttack, Nearest, annealed, farthest
from keras_robust.attacks.problem import Problem
from keras_robust.checks import check_number, check_share
from keras_robust.norms import choose, per_example, radius
from keras_robust.threat import ThreatModel
from keras_robust.types import Tensor

LAST_STEP = 0.01


class State(NamedTuple):
    """A run between two evaluations: where it is, the radius of the sphere, the nearest point so far, and a direction
    to take where the gradient is zero."""

    x: Any
    eps: Any
    nearest: Nearest
    anywhere: Any


@keras.saving.register_keras_serializable("keras_robust")
class DDN(MinimalNormAttack):
    """Decoupled Direction and Norm attack, for L2: steps along the gradient of the cross-entropy, each followed by a
    projection onto a sphere that shrinks where the point is misclassified and grows where it is not.

    Rony et al. 2019, "Decoupling direction and norm for efficient gradient-based L2 adversarial attacks and defenses"
    (CVPR), algorithm 1, without rounding to 8 bits.

    Args:
        threat: "L2", for the nearest point at any distance; or a `ThreatModel`: a run then ends with the first point in
            its ball.
        n_iter: gradients per image. The Euclidean length of the steps falls from 1 to 0.01 along a cosine.
        init_norm: radius of the first sphere.
        gamma: relative change of the radius at each step.
        seed: of the directions that are taken where the gradient is zero.

    Calling it returns an `AttackResult`, as `MinimalNormAttack` says.

    Example:
        >>> distances = DDN(n_iter=100)(model, x, y).distances
    """

    supported_norms = ("L2",)

    def __init__(
        self,
        threat: ThreatModel | str = "L2",
        n_iter: int = 100,
        init_norm: float = 1.0,
        gamma: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__(threat, n_iter, "ce", seed)
        self.init_norm, self.gamma = check_number("init_norm", init_norm), check_share("gamma", gamma)

    def begin(self, problem: Problem) -> State:
        zero = ops.zeros_like(problem.x[:, 0, 0, 0])
        anywhere = problem.norm.step(random.normal(problem.keys, problem.x))
        return State(problem.x, zero + self.init_norm, Nearest(problem.x, zero + float("inf")), anywhere)

    def advance(self, problem: Problem, i: Any, state: State) -> State:
        x, eps, nearest, anywhere = state
        norm, image = problem.norm, problem.x
        _, correct, gradient = problem.gradient(x)
        nearest = nearest.merge(x, norm.of(x - image), correct, self.counts(i))
        eps = ops.minimum(ops.where(correct > 0.0, 1.0 + self.gamma, 1.0 - self.gamma) * eps, farthest(problem))
        ahead = x + radius(annealed(i, self.n_iter, 1.0, LAST_STEP), x) * _direction(gradient, anywhere)
        return State(norm.onto_sphere(ahead, image, eps), eps, nearest, anywhere)  # type: ignore[attr-defined]

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "init_norm": self.init_norm, "gamma": self.gamma}


def _direction(gradient: Tensor, anywhere: Tensor) -> Tensor:
    """The unit vectors along each example's gradient; `anywhere` where it is zero."""
    # Divided by the largest entry first: squares of the tiny gradients of a sure model underflow.
    largest = ops.max(ops.abs(gradient), axis=tuple(range(1, len(gradient.shape))))
    gradient = gradient / per_example(ops.where(largest > 0.0, largest, 1.0), gradient)
    length = ops.sqrt(ops.sum(gradient * gradient, axis=tuple(range(1, len(gradient.shape)))))
    return choose(is_zero(gradient), anywhere, gradient / per_example(ops.maximum(length, 1e-12), gradient))
