"""Projected gradient descent with a fixed step (Madry et al. 2018) and its one-step case, FGSM."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
from keras import ops

from keras_robust.attacks.base import RETURNS, Attack
from keras_robust.attacks.problem import Found, Problem, repeat
from keras_robust.checks import check_count, check_number
from keras_robust.norms import radius
from keras_robust.threat import ThreatModel
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class PGD(Attack):
    """Projected gradient ascent on the loss with steps of one size (Madry et al. 2018, section 2.1).

    Args:
        n_iter: gradient steps per run.
        step_size: size of a step in the threat model's norm, in units of pixels in [0, 1]; by default 2.5 eps / n_iter.

    The other arguments are those of `Attack`. `returns="last"` saves the forward pass that would evaluate the last
    point. Under L1 a step moves the 5 % of the entries with the largest gradients.

    Example:
        >>> attack = PGD(ThreatModel("Linf", 8 / 255), n_iter=10, step_size=2 / 255, random_start=True)
        >>> x_adv = attack(model, x, y)
    """

    supported_returns = RETURNS
    takes_dense_labels = True

    def __init__(self, threat: ThreatModel, n_iter: int = 10, step_size: float | None = None, **options: Any) -> None:
        super().__init__(threat, **options)
        self.n_iter = check_count("n_iter", n_iter)
        self.step_size = None if step_size is None else check_number("step_size", step_size)

    def run(self, problem: Problem) -> Found:
        start = self.start(problem)
        size = self._relative_step() * problem.eps if self.step_size is None else self.step_size

        def step(x: Tensor, gradient: Tensor) -> Tensor:
            return problem.norm.project(x + radius(size, x) * problem.norm.step(gradient), problem.x, problem.eps)

        loss, correct, gradient = problem.gradient(start, start=True)
        if self.returns == "last":
            x = step(start, gradient)
            (x,) = repeat(1, self.n_iter, lambda i, state: (step(state[0], problem.gradient(state[0])[2]),), (x,))
            return Found(x, None, None)

        def iterate(
            i: int, state: tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]
        ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
            x, gradient, answer = state
            x = step(x, gradient)
            loss, correct, gradient = problem.gradient(x)
            return x, gradient, Found(*answer).merge(Found(x, loss, correct), self.returns).state()

        first = (start, gradient, Found(start, loss, correct).state())
        x, gradient, answer = repeat(0, self.n_iter - 1, iterate, first)
        x = step(x, gradient)
        return Found(*answer).merge(Found(x, *problem.value(x)), self.returns)

    def propagations(self, num_classes: int) -> int:
        # The whole run is one evaluation; its last point is looked at, but not where it is the answer in any case.
        return 2 * self.eot_iter * self.n_iter + (self.returns != "last")

    def _relative_step(self) -> float:
        return 2.5 / self.n_iter

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "n_iter": self.n_iter, "step_size": self.step_size}


@keras.saving.register_keras_serializable("keras_robust")
class FGSM(PGD):
    """One signed gradient step (Goodfellow et al. 2015); with `random_start`, FGSM-RS (Wong et al. 2020).

    Args:
        step_size: by default eps, and 1.25 eps from a random start (Wong et al. 2020, section 4.2).

    The other arguments are those of `Attack`.

    Example:
        >>> x_adv = FGSM(ThreatModel("Linf", 4 / 255))(model, x, y)
        >>> training = FGSM(ThreatModel("Linf", 4 / 255), random_start=True, returns="last")
    """

    def __init__(self, threat: ThreatModel, step_size: Any = None, **options: Any) -> None:
        super().__init__(threat, n_iter=1, step_size=step_size, **options)

    def _relative_step(self) -> float:
        return 1.25 if self.random_start else 1.0

    def arguments(self) -> dict[str, Any]:
        arguments = super().arguments()
        del arguments["n_iter"]
        return arguments


@keras.saving.register_keras_serializable("keras_robust")
class NFGSM(Attack):
    """N-FGSM (de Jorge et al. 2022): one full step from a noisy image, and no clipping to the ball in training.

    x + u + eps step(gradient at x + u), with u a random point of the ball of radius `noise` eps: inside a training
    step the result lies in the ball of radius (noise + 1) eps and in [0, 1], which is what keeps one-step training from
    catastrophic overfitting. Called as an attack, `attack(model, x, y)`, it stays within the threat model as all
    attacks do.

    Args:
        noise: radius of the noise in units of eps; 2 in the publication (k).
        loss, seed: as of `Attack`.

    Example:
        >>> trainer = kr.AdversarialModel(model, NFGSM(ThreatModel("Linf", 4 / 255)))
    """

    supported_returns = ("last",)
    takes_dense_labels = True

    def __init__(self, threat: ThreatModel, noise: float = 2.0, loss: str = "ce", seed: int = 0) -> None:
        super().__init__(threat, loss=loss, seed=seed, random_start=True, returns="last")
        self.noise = check_number("noise", noise)

    def start(self, problem: Problem) -> Tensor:
        return problem.norm.random(problem.keys, problem.x, self.noise * problem.eps)

    def run(self, problem: Problem) -> Found:
        start = self.start(problem)
        _, _, gradient = problem.gradient(start, start=True)
        return Found(ops.clip(start + radius(problem.eps, start) * problem.norm.step(gradient), 0.0, 1.0), None, None)

    def perturb(
        self,
        model: Any,
        x: Tensor,
        y: Tensor,
        keys: tuple[Tensor, Tensor],
        eps: float | None = None,
        loss_scale: float = 1.0,
        observe: Callable | None = None,
        goal: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        problem = replace(self.problem(model, x, y, eps, loss_scale), observe=observe, goal=goal)
        return self.run(self.attempt(problem, keys, 0, None)).x, None

    def _checked_run(
        self, model: Any, x: Tensor, y: Tensor, index: Tensor, goal: Tensor | None = None, loss_scale: float = 1.0
    ) -> tuple[Any, ...]:
        x_adv, _, _, zero = super()._checked_run(model, x, y, index, goal, loss_scale)
        x_adv = self.threat.geometry.project(x_adv, x, self.threat.eps)
        return x_adv, None, self.threat.geometry.contains(x_adv, x, self.threat.eps), zero

    def arguments(self) -> Any:
        return {"threat": self.threat, "noise": self.noise, "loss": self.loss, "seed": self.seed}
