"""Fast Adaptive Boundary attack: the nearest point across the decision boundary (Croce & Hein 2020, ICML)."""

from dataclasses import replace
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_robust import losses
from keras_robust.attacks.base import Attack, even_chunk
from keras_robust.attacks.problem import Found, Problem
from keras_robust.checks import check_bool, check_count
from keras_robust.norms import choose, per_example
from keras_robust.threat import ThreatModel
from keras_robust.types import Tensor

LARGEST_SHARE = 0.1  # of the way from the image's projection that a step may take (alpha_max)
OVERSHOOT = 1.05  # of the steps to the linearised boundary (eta)
PULL_BACK = 0.9  # of a misclassified point's distance from the image: there the search goes on (beta)
NO_POINT = -3e38  # instead of minus the distance, where there is no misclassified point in the ball
SMALLEST_STEP = 1e-8  # so that the shares of two steps of length zero are defined


class State(NamedTuple):
    """A run between two iterations: where it is; the nearest misclassified point so far and its distance; the margin at
    the start, NaN where the attack could not begin."""

    x: Any
    nearest: Any
    distance: Any
    margin: Any


@keras.saving.register_keras_serializable("keras_robust")
class FAB(Attack):
    """Fast Adaptive Boundary attack: looks for the smallest change that is misclassified, whatever the radius.

    Croce & Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack": projections
    onto the linearised decision boundary inside the box, biased towards the image.

    Args:
        n_iter: iterations per run: a gradient each (untargeted: one for every class) and a forward pass.
        targeted: aim at one class after the other, from that of the second highest logit on, instead of at the nearest
            boundary of all: the only way that is affordable with many classes.
        n_restarts: of these the first starts at the image, the others at random points of half the radius.

    `threat`, `seed` and `n_target_classes` are those of `Attack`. What is returned is the nearest misclassified point
    where it lies in the threat model's ball, else the image itself.

    Example:
        >>> x_adv = FAB(ThreatModel("L2", 0.5), n_iter=100, targeted=True)(model, x, y)
    """

    minimises_norm = True

    def __init__(
        self,
        threat: ThreatModel,
        n_iter: int = 100,
        targeted: bool = False,
        n_restarts: int = 1,
        seed: int = 0,
        n_target_classes: int = 9,
    ) -> None:
        loss = "targeted-margin" if check_bool("targeted", targeted) else "margin"
        super().__init__(threat, loss, seed=seed, n_target_classes=n_target_classes)
        self.n_restarts = check_count("n_restarts", n_restarts)
        self.n_iter = check_count("n_iter", n_iter)
        self.evaluations = self.n_iter
        self.chunk = even_chunk(self.evaluations)

    def propagations(self, num_classes: int) -> int:
        return 1 + 2 * (1 if self.targeted else num_classes)

    def start(self, problem: Problem) -> Tensor:
        if self.n_restarts == 1:
            return problem.x
        elsewhere = problem.norm.random(problem.keys, problem.x, 0.5 * problem.eps)
        again = ops.convert_to_tensor(problem.restart) > 0
        return choose(again, elsewhere, problem.x) if len(again.shape) else ops.where(again, elsewhere, problem.x)

    def begin(self, problem: Problem) -> "State":
        x = self.start(problem)
        zero = ops.zeros_like(x[:, 0, 0, 0])
        return State(x, problem.x, zero + float("inf"), zero)

    def advance(self, problem: Problem, i: Any, state: "State") -> "State":
        x, nearest, distance, margin = state
        image, norm = problem.x, problem.norm
        first = isinstance(i, int) and i == 0
        gap, gradient = self._boundary(problem, x, first)
        if first:
            margin = gap
            if problem.observe is not None and not self.targeted:
                problem.observe(gap, gradient, problem.value(x)[1])
        gap_at_image = gap + ops.sum(gradient * (image - x), axis=tuple(range(1, len(x.shape))))
        # Both projections at once: half as many operations.
        steps = norm.to_hyperplane(
            ops.concatenate([x, image]),
            ops.concatenate([gradient, gradient]),
            ops.concatenate([gap, gap_at_image]),
        )
        here, from_image = ops.split(steps, 2)
        length, length_from_image = (ops.maximum(norm.of(step), SMALLEST_STEP) for step in (here, from_image))
        share = per_example(ops.minimum(length / (length + length_from_image), LARGEST_SHARE), x)
        x = (1.0 - share) * (x + OVERSHOOT * here) + share * (image + OVERSHOOT * from_image)
        x = ops.clip(x, 0.0, 1.0)

        _, correct = problem.value(x)
        size = norm.of(x - image)
        misclassified = ops.equal(correct, 0.0)
        nearer = ops.logical_and(misclassified, size < distance)
        if not isinstance(i, int):
            nearer = ops.logical_and(nearer, i < self.n_iter)
        return State(
            choose(misclassified, image + PULL_BACK * (x - image), x),
            choose(nearer, x, nearest),
            ops.where(nearer, size, distance),
            margin,
        )

    def _boundary(self, problem: Problem, x: Tensor, start: bool) -> tuple[Tensor, Tensor]:
        """The linearised boundary: by how much the class ahead of it leads or trails the label's, and the gradient."""
        if problem.goal is not None:
            problem = replace(problem, loss=losses.margin, target=None)
        if self.targeted or problem.goal is not None:
            gap, _, gradient = problem.gradient(x, start)
            return gap, gradient
        towards = replace(problem, loss=losses.targeted_margin, observe=None)
        y = losses.class_of(problem.y)

        def consider(c: Any, nearest: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            gap, gradient, distance = nearest
            gap_c, _, gradient_c = replace(towards, target=ops.zeros_like(y) + c).gradient(x, start)
            distance_c = ops.abs(gap_c) / (problem.norm.dual(gradient_c) + 1e-12)
            nearer = ops.logical_and(ops.not_equal(y, c), ops.logical_not(distance_c >= distance))
            return (
                ops.where(nearer, gap_c, gap),
                choose(nearer, gradient_c, gradient),
                ops.where(nearer, distance_c, distance),
            )

        zero = ops.zeros_like(x[:, 0, 0, 0])
        num_classes = problem.model(x).shape[-1]
        gap, gradient, _ = ops.fori_loop(0, num_classes, consider, (zero, ops.zeros_like(x), zero + float("inf")))
        return gap, gradient

    def run(self, problem: Problem) -> Found:
        begun = self.begin(problem)
        # An image that is misclassified as it is, is its own nearest such point.
        _, correct = problem.value(problem.x)
        state = self.advance(problem, 0, begun._replace(distance=ops.where(correct > 0.0, begun.distance, 0.0)))
        state, _ = self.iterate(problem, 1, state, self.n_iter - 1)
        return self.outcome(problem, state)

    def misclassified(self, problem: Problem, state: "State") -> Tensor:
        return state.distance <= problem.eps

    def outcome(self, problem: Problem, state: "State") -> Found:
        _, nearest, distance, margin = state
        inside = ops.logical_and(distance < float("inf"), problem.norm.contains(nearest, problem.x, problem.eps))
        # Of several runs the nearest point wins.
        loss = ops.where(inside, -distance, NO_POINT)
        loss = ops.where(ops.isnan(margin), margin, loss)
        return Found(choose(inside, nearest, problem.x), loss, ops.logical_not(inside))

    def arguments(self) -> dict[str, ThreatModel | int]:
        return {
            "threat": self.threat,
            "n_iter": self.n_iter,
            "targeted": self.targeted,
            "n_restarts": self.n_restarts,
            "seed": self.seed,
            "n_target_classes": self.n_target_classes,
        }
