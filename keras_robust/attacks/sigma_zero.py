"""Sigma-zero: the fewest values to change, by a smooth stand-in for their number (Cina et al. 2025)."""

import math
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_robust.attacks.minimal import MinimalNormAttack, Nearest, annealed
from keras_robust.attacks.problem import Problem
from keras_robust.checks import check_number
from keras_robust.norms import NORMS, per_example, radius
from keras_robust.threat import ThreatModel
from keras_robust.types import Tensor

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # of Adam
LAST_STEP = 0.1  # the last step size as a share of the first


class State(NamedTuple):
    """A run between two evaluations: where it is, Adam's moments, the threshold below which changes are undone, and the
    nearest point so far."""

    x: Any
    mean: Any
    square: Any
    threshold: Any
    nearest: Nearest


@keras.saving.register_keras_serializable("keras_robust")
class SigmaZero(MinimalNormAttack):
    """Sigma-zero, for L0: Adam on the margin plus a smooth approximation of the number of changed values, with a
    threshold below which changes are undone, and which rises where the point is misclassified.

    Cina et al. 2025, "Sigma-zero: gradient-based optimization of L0-norm adversarial examples" (ICLR), algorithm 1.

    Args:
        threat: "L0", for the nearest point at any distance; or a `ThreatModel`: a run then ends with the first point in
            its ball.
        n_iter: gradients per image.
        step_size: first step size, eta_0; the last one is a tenth of it.
        sigma: of the approximation of the number of changes, sum of d^2 / (d^2 + sigma); the smaller the sharper.
        threshold: first threshold, tau_0.
        threshold_step: what the threshold changes by at each step, in step sizes, t.
        seed: as of `Attack`; nothing is drawn.

    Calling it returns an `AttackResult`, as `MinimalNormAttack` says.

    Example:
        >>> changed_values = SigmaZero(n_iter=100)(model, x, y).distances
    """

    supported_norms = ("L0",)

    def __init__(
        self,
        threat: ThreatModel | str = "L0",
        n_iter: int = 1000,
        step_size: float = 1.0,
        sigma: float = 1e-3,
        threshold: float = 0.3,
        threshold_step: float = 0.01,
        seed: int = 0,
    ) -> None:
        super().__init__(threat, n_iter, "margin", seed)
        self.step_size, self.threshold = check_number("step_size", step_size), check_number("threshold", threshold)
        self.sigma = check_number("sigma", sigma)
        if not self.sigma:
            raise ValueError(f"sigma must be above 0; received {sigma!r}.")
        self.threshold_step = check_number("threshold_step", threshold_step)

    @property
    def name(self) -> str:
        return "sigma-zero"

    def begin(self, problem: Problem) -> State:
        zero = ops.zeros_like(problem.x[:, 0, 0, 0])
        still = ops.zeros_like(problem.x)
        return State(problem.x, still, still, zero + self.threshold, Nearest(problem.x, zero + float("inf")))

    def advance(self, problem: Problem, i: Any, state: State) -> State:
        x, mean, square, threshold, nearest = state
        gap, correct, gradient = problem.gradient(x)
        delta = x - problem.x
        nearest = nearest.merge(x, problem.norm.of(delta), correct, self.counts(i))

        # Of max(-gap, 0), whose slope ends at the boundary, and of the mean of d^2 / (d^2 + sigma).
        descent = self._slope_of_count(delta) - gradient * per_example(ops.cast(gap <= 0.0, x.dtype), x)
        descent = descent / per_example(ops.maximum(NORMS["Linf"].of(descent), 1e-12), x)
        mean = BETA_1 * mean + (1.0 - BETA_1) * descent
        square = BETA_2 * square + (1.0 - BETA_2) * descent * descent
        # 1 - beta^(i + 1), which in float32 would lose its last digits.
        first, second = (-ops.expm1(_as_float(i + 1) * math.log(beta)) for beta in (BETA_1, BETA_2))
        step = radius(self._step(i - 1) / first, x) * mean
        x = ops.clip(x - step / (ops.sqrt(square) / radius(ops.sqrt(second), x) + EPSILON), 0.0, 1.0)

        change = self.threshold_step * self._step(i)
        threshold = ops.clip(threshold + ops.where(correct > 0.0, -change, change), 0.0, 1.0)
        undone = ops.abs(x - problem.x) < per_example(threshold, x)
        return State(ops.where(undone, problem.x, x), mean, square, threshold, nearest)

    def _step(self, i: Any) -> Any:
        """Step size at step i; that of the first step is used twice."""
        i = max(i, 0) if isinstance(i, int) else ops.maximum(i, 0)
        return annealed(i, self.n_iter, self.step_size, LAST_STEP * self.step_size)

    def _slope_of_count(self, delta: Tensor) -> Tensor:
        approximated = delta * delta + self.sigma
        size = _as_float(math.prod(ops.shape(delta)[1:]))  # known only when the graph runs where sizes are open
        return (2.0 * self.sigma / size) * delta / (approximated * approximated)

    def arguments(self) -> dict[str, Any]:
        names = ("step_size", "sigma", "threshold", "threshold_step")
        return {**super().arguments(), **{name: getattr(self, name) for name in names}}


def _as_float(i: Any) -> Any:
    return float(i) if isinstance(i, int) else ops.cast(i, "float32")
