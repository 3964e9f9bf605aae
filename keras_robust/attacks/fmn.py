"""Fast Minimum-Norm attack: gradient steps in a ball whose radius follows the boundary (Pintor et al. 2021)."""

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_robust.attacks.minimal import MinimalNormAttack, Nearest, annealed, farthest
from keras_robust.attacks.problem import Problem
from keras_robust.checks import check_number, check_share
from keras_robust.norms import NORMS, per_example, radius
from keras_robust.threat import ThreatModel
from keras_robust.types import Tensor

LAST_STEP = 0.01  # the last step as a share of the first
LAST_GAMMA = 0.001


class LengthRule:
    """Radii of norms that are lengths: relative steps and, until the boundary is crossed, the linearised distance."""

    @staticmethod
    def initial(zero: Tensor) -> Tensor:
        return zero + float("inf")

    @staticmethod
    def outwards(eps: Tensor, gamma: Any, found: Tensor, late: Any, size: Tensor, to_boundary: Tensor) -> Tensor:
        estimate, grown = size + to_boundary, eps * (1.0 + gamma)
        return ops.where(found, grown, ops.where(late, ops.maximum(estimate, grown), estimate))

    @staticmethod
    def move(norm: Any, x_adv: Tensor, x: Tensor, eps: Tensor) -> Tensor:
        return norm.retract(x_adv, x, eps)

    @staticmethod
    def inwards(eps: Tensor, gamma: Any) -> Tensor:
        return eps * (1.0 - gamma)


class SphereRule(LengthRule):
    """L2, as in the authors' code: what lies inside of the ball is moved out to its surface, too."""

    @staticmethod
    def move(norm: Any, x_adv: Tensor, x: Tensor, eps: Tensor) -> Tensor:
        return norm.onto_sphere(x_adv, x, eps)


class CountRule(LengthRule):
    """Radii of norms that count: whole numbers, at least one apart and at least one."""

    @staticmethod
    def initial(zero: Tensor) -> Tensor:
        return zero + 1.0

    @staticmethod
    def outwards(eps: Tensor, gamma: Any, found: Tensor, late: Any, size: Tensor, to_boundary: Tensor) -> Tensor:
        return ops.maximum(eps + 1.0, ops.floor(eps * (1.0 + gamma)))

    @staticmethod
    def inwards(eps: Tensor, gamma: Any) -> Tensor:
        return ops.maximum(ops.minimum(eps - 1.0, ops.floor(eps * (1.0 - gamma))), 1.0)


RULES: dict[str, Any] = {
    "Linf": LengthRule,
    "L2": SphereRule,
    "L1": LengthRule,
    "L0": CountRule,
    "L0-pixels": CountRule,
}


class State(NamedTuple):
    """A run between two evaluations: where it is, the radius of the ball, the nearest point so far."""

    x: Any
    eps: Any
    nearest: Nearest


@keras.saving.register_keras_serializable("keras_robust")
class FMN(MinimalNormAttack):
    """Fast Minimum-Norm attack, for Linf, L2, L1 and L0: steps along the gradient of the margin, in a ball that shrinks
    where the point is misclassified and grows where it is not.

    Pintor et al. 2021, "Fast minimum-norm adversarial attacks through adaptive norm constraints" (NeurIPS), algorithm
    1: step size and relative change of the radius fall along a cosine. One thing is added: where the boundary was
    not crossed in the first half of the run, the radius grows from then on at least as fast as after a crossing. In the
    publication it follows the linearised distance alone, which stands still where the box cuts steps off, and such
    images pass for robust.

    Args:
        threat: a norm's name, for the nearest point at any distance; or a `ThreatModel`: a run then ends with the
            first point in its ball.
        n_iter: gradients per image.
        step_size: Euclidean length of the first step, alpha_0; the last one is a hundredth of it.
        gamma: relative change of the radius at the first step; 0.001 at the last.
        seed: as of `Attack`; nothing is drawn.

    Calling it returns an `AttackResult`, as `MinimalNormAttack` says.

    Example:
        >>> result = FMN("L2", n_iter=100)(model, x, y)
        >>> result.distances.shape == (len(x),)
        True
        >>> result.robust_at(0.0).value <= result.clean_accuracy
        True
    """

    def __init__(
        self,
        threat: ThreatModel | str,
        n_iter: int = 100,
        step_size: float = 1.0,
        gamma: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__(threat, n_iter, "margin", seed)
        self.step_size, self.gamma = check_number("step_size", step_size), check_share("gamma", gamma)
        self._rule = RULES[self.threat.norm]

    def begin(self, problem: Problem) -> State:
        zero = ops.zeros_like(problem.x[:, 0, 0, 0])
        return State(problem.x, self._rule.initial(zero), Nearest(problem.x, zero + float("inf")))

    def advance(self, problem: Problem, i: Any, state: State) -> State:
        x, eps, nearest = state
        norm, image = problem.norm, problem.x
        gap, correct, gradient = problem.gradient(x)
        size = norm.of(x - image)
        nearest = nearest.merge(x, size, correct, self.counts(i))

        gamma = annealed(i, self.n_iter, self.gamma, LAST_GAMMA)
        to_boundary = ops.abs(gap) / ops.maximum(norm.dual(gradient), 1e-12)
        found = nearest.distance < float("inf")
        eps = ops.where(
            correct > 0.0,
            self._rule.outwards(eps, gamma, found, 2 * i >= self.n_iter, size, to_boundary),
            ops.minimum(self._rule.inwards(eps, gamma), nearest.distance),
        )
        eps = ops.minimum(eps, farthest(problem))
        step = annealed(i, self.n_iter, self.step_size, LAST_STEP * self.step_size)
        direction = gradient / per_example(ops.maximum(NORMS["L2"].of(gradient), 1e-12), x)
        return State(self._rule.move(norm, x + radius(step, x) * direction, image, eps), eps, nearest)

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "step_size": self.step_size, "gamma": self.gamma}
