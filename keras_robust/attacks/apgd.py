"""Auto-PGD: projected gradient ascent that sets its own step size (Croce & Hein 2020; for L1, Croce & Hein 2021)."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_robust import losses
from keras_robust.attacks.base import Attack, even_chunk
from keras_robust.attacks.problem import Found, Problem, no_point_yet, repeat
from keras_robust.checks import check_bool, check_choice, check_count
from keras_robust.norms import choose, on_8_bit_grid, per_example
from keras_robust.threat import ThreatModel
from keras_robust.types import Tensor

# Stages of a run: radius as a multiple of eps, and share of the iterations.
CONSTANT = ((1.0, 1.0),)
# From outside the ball inwards, by norm: L1 for classifiers (Croce & Hein 2021, section 4), Linf for segmentation
# (Croce, Singh & Hein 2024, section 3).
SHRINKING = {
    "L1": ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4)),
    "Linf": ((2.0, 0.3), (1.5, 0.3), (1.0, 0.4)),
}
SCHEDULES = ("constant", "shrinking")


def step_size_checks(n_iter: int) -> list[int]:
    """Lengths of the intervals between step-size decisions: .22 n iterations, each .03 n fewer, down to .06 n.

    Returns:
        A list `due` of n_iter entries: at the end of an interval its length, elsewhere 0.
    """
    length, shorter, least = (max(int(part * n_iter), 1) for part in (0.22, 0.03, 0.06))
    due: list[Any] = []
    while len(due) < n_iter:
        due += [0] * (length - 1) + [length]
        length = max(length - shorter, least)
    return due[:n_iter]


def even_step_size_checks(n_iter: int) -> list[int]:
    """The same for intervals of one length, .04 n iterations."""
    length = max(int(0.04 * n_iter), 1)
    return [length if (i + 1) % length == 0 else 0 for i in range(n_iter)]


class StepSchedule:
    """Schedule of the evaluations of a run: n_iter steps in stages, each of which evaluates its own start.

    Attributes (numpy arrays, one entry per evaluation):
        first: a stage begins here.
        last: a stage ends here, and the next begins from its best point.
        due: length of the interval of steps that ends here, 0 inside an interval.
        reach: radius of the next point as a multiple of eps.
        counts: the point lies in the ball, it may be the answer.
    """

    def __init__(self, stages: tuple[tuple[float, float], ...], n_iter: int, intervals: Callable) -> None:
        lengths = [math.ceil(share * n_iter - 1e-9) for _, share in stages]
        lengths[-1] = n_iter - sum(lengths[:-1])
        first, last, due, reach, counts = [], [], [], [], []
        for (radius, _), (after, _), length in zip(stages, [*stages[1:], stages[-1]], lengths):
            first += [True] + [False] * length
            last += [False] * length + [True]
            due += [0, *intervals(length)]
            reach += [radius] * length + [after]
            counts += [radius == 1.0] * (length + 1)
        last[-1] = False
        # What evaluations beyond the end see, in batches whose examples end at different times.
        for column, value in ((first, False), (last, False), (due, 0), (reach, 1.0), (counts, False)):
            column += [value]
        self.staged = len(stages) > 1
        self.first, self.last, self.counts = np.array(first), np.array(last), np.array(counts)
        self.due, self.reach = np.array(due, "float32"), np.array(reach, "float32")

    def __len__(self) -> int:
        return len(self.first) - 1

    def at(self, column: np.ndarray, i: Any) -> Any:
        """Entry of a column at evaluation `i`: a Python value for a Python index, else a tensor in the shape of `i`."""
        if isinstance(i, int):
            return column[i].item()
        return ops.take(ops.convert_to_tensor(column), ops.minimum(i, len(self)))


class MomentumRule:
    """Steps with momentum; the step size halves where the loss stops rising. Linf and L2."""

    intervals = staticmethod(step_size_checks)

    def __init__(self, problem: Problem, share: float) -> None:
        self.problem = problem

    def initial(self, loss: Tensor, x: Tensor, staged: bool, eps: Any) -> tuple[Tensor, ...]:
        """Step size; steps of this interval that raised the loss; loss of the step before (0 before the first one);
        best loss at the last checkpoint; whether the step was halved there (so that it cannot stall at the first)."""
        zero = ops.zeros_like(loss)
        return zero + 2.0 * eps, zero, zero, loss, ops.ones_like(loss)

    def step(
        self, first: Any, control: tuple[Tensor, ...], x: Tensor, previous: Tensor, gradient: Tensor, eps: Any
    ) -> Tensor:
        norm, centre = self.problem.norm, self.problem.x
        z = norm.retract(x + per_example(control[0], x) * norm.step(gradient), centre, eps)
        a = _choose_number(first, 1.0, 0.75, x)
        return norm.retract(x + a * (z - x) + (1.0 - a) * (x - previous), centre, eps)

    def decide(
        self, length: Any, control: tuple[Tensor, ...], loss: Tensor, best: Found, eps: Any
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """The next control state, and where to go on from the best point."""
        size, raised, loss_before, best_then, halved_then = control
        due = ops.convert_to_tensor(length > 0.0)
        raised = raised + ops.cast(loss > loss_before, "float32")
        oscillates = raised <= 0.75 * length
        stalls = ops.logical_and(halved_then == 0.0, best_then >= best.loss)
        halve = ops.logical_and(due, ops.logical_or(oscillates, stalls))
        control = (
            ops.where(halve, 0.5 * size, size),
            ops.where(due, 0.0, raised),
            loss,
            ops.where(due, best.loss, best_then),
            ops.where(due, ops.cast(halve, "float32"), halved_then),
        )
        return control, halve


class SparsityRule:
    """Sparse steps without momentum; their sparsity follows that of the best perturbation so far. L1."""

    intervals = staticmethod(even_step_size_checks)

    def __init__(self, problem: Problem, share: float) -> None:
        self.problem = problem
        self.share = share

    def initial(self, loss: Tensor, x: Tensor, staged: bool, eps: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Step size; share of the entries that move; non-zero entries of the best perturbation at the last check."""
        zero = ops.zeros_like(loss)
        if not staged:
            return zero + eps, zero + self.share, zero + self._entries()
        support = self._support(x)
        return zero + eps, support / self._entries() / 1.5, support

    def step(
        self,
        first: Any,
        control: tuple[Tensor, Tensor, Tensor],
        x: Tensor,
        previous: Tensor,
        gradient: Tensor,
        eps: Any,
    ) -> Tensor:
        norm = self.problem.norm
        direction = norm.sparse_step(gradient, control[1])  # type: ignore[attr-defined]
        return norm.project(x + per_example(control[0], x) * direction, self.problem.x, eps)

    def decide(
        self, length: Any, control: tuple[Tensor, Tensor, Tensor], loss: Tensor, best: Found, eps: Any
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """The next control state, and where to go on from the best point."""
        size, share, support_then = control
        support = self._support(best.x)
        due = ops.convert_to_tensor(length > 0.0)
        sparser = ops.logical_and(due, support < 0.95 * support_then)
        size_now = ops.clip(ops.where(sparser, eps, size / 1.5), eps / 10.0, eps)
        control = (
            ops.where(due, size_now, size),
            ops.where(due, support / self._entries() / 1.5, share),
            ops.where(due, support, support_then),
        )
        return control, sparser

    def _support(self, x: Tensor) -> Tensor:
        changed = ops.cast(ops.not_equal(x, self.problem.x), "float32")
        return ops.sum(changed, axis=tuple(range(1, len(changed.shape))))

    def _entries(self) -> Tensor:
        return ops.cast(math.prod(ops.shape(self.problem.x)[1:]), "float32")


RULES: dict[str, Any] = {"Linf": MomentumRule, "L2": MomentumRule, "L1": SparsityRule}


def _choose_number(condition: Any, yes: float, no: float, x: Tensor) -> Any:
    """A number for all examples, or one for each, to multiply `x` with."""
    if isinstance(condition, bool):
        return yes if condition else no
    number = ops.cast(ops.where(condition, yes, no), x.dtype)  # not the dtype of `floatx`
    return per_example(number, x) if len(number.shape) else number


class State(NamedTuple):
    """A run between two evaluations; `best` and `answer` are the fields of a `Found`."""

    x: Any
    previous: Any
    best: tuple
    best_gradient: Any
    answer: tuple
    control: tuple


@keras.saving.register_keras_serializable("keras_robust")
class APGD(Attack):
    """Auto-PGD: projected gradient ascent without a step size to tune.

    Linf and L2: Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", section 3. L1: Croce & Hein 2021, "Mind the box", section 4; sparse steps whose first
    share of moving entries is 5 % with returns="highest_loss" (training), 20 % with "misclassified" (evaluation).

    Args:
        n_iter: gradient steps per run. Cost: n_iter + 1 forward and n_iter input-gradient passes.
        schedule: "constant", or "shrinking": 30, 30 and 40 % of the steps at a larger radius, a less large one and eps,
            each stage from the point of highest tracked loss of the one before; n_iter >= 3. Under L1 at 3 eps, 2 eps
            and eps, as in AutoAttack; under Linf at 2 eps, 1.5 eps and eps, as in SEA (`kr.segmentation`).
        tracked_loss: None, or another loss than the one that is differentiated, by which points are compared and the
            step size is set: that of a part of the pixels says little about the image.
        eight_bit: look only at images whose pixels are multiples of 1/255, which an image file can hold; the images
            must be of that kind, and the schedule constant. Steps are taken between these points all the same, or small
            ones would come to nothing: the gradient is that at the nearest of them in the ball.

    The other arguments are those of `Attack`. Without random start the result is deterministic.

    Example:
        >>> attack = APGD(ThreatModel("Linf", 4 / 255), n_iter=2)            # the paper's training attack
        >>> x_adv = attack(model, x, y)
        >>> strong = APGD(ThreatModel("L2", 2.0), n_iter=100, random_start=True, n_restarts=5, returns="misclassified")
    """

    takes_dense_labels = True

    def __init__(
        self,
        threat: ThreatModel,
        n_iter: float = 10,
        schedule: str = "constant",
        tracked_loss: Any = None,
        eight_bit: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(threat, **options)
        self.eight_bit = check_bool("eight_bit", eight_bit)
        self.n_iter = check_count("n_iter", n_iter)
        self.schedule = check_choice("schedule", schedule, SCHEDULES)
        if schedule != "constant" and (threat.norm not in SHRINKING or n_iter < 3):
            raise ValueError(
                f"schedule={schedule!r} is for {' and '.join(SHRINKING)}, and n_iter >= 3; "
                f"received {threat} and {n_iter}."
            )
        if self.eight_bit and schedule != "constant":
            raise ValueError(f"schedule must be 'constant' with eight_bit=True; received {schedule!r}.")
        if self.targeted and tracked_loss is not None:
            raise ValueError(f"tracked_loss must be None with loss={self.loss!r}; received {tracked_loss!r}.")
        self.tracked_loss = tracked_loss
        self._rule = RULES[threat.norm]
        stages = CONSTANT if schedule == "constant" else SHRINKING[threat.norm]
        self._schedule = StepSchedule(stages, self.n_iter, self._rule.intervals)
        self.evaluations = len(self._schedule)
        self.chunk = even_chunk(self.evaluations)

    @property
    def name(self) -> str:
        return f"{super().name}-8-bit" if self.eight_bit else super().name

    def __call__(self, model: Any, x: Any, y: Any, target: Any = None, first_index: int = 0) -> Any:
        if self.eight_bit and getattr(x, "shape", None) is not None:
            levels = 255.0 * ops.convert_to_numpy(x).astype(np.float64)
            if not np.allclose(levels, np.round(levels), rtol=0.0, atol=1e-3):
                raise ValueError("x must be images of 8 bits over 255 with eight_bit=True; received others.")
        return super().__call__(model, x, y, target, first_index)

    def problem(self, *arguments: Any, **options: Any) -> Problem:
        tracked = None if self.tracked_loss is None else losses.get(self.tracked_loss)
        return replace(super().problem(*arguments, **options), tracked_loss=tracked)

    def begin(self, problem: Problem) -> "State":
        x = self.start(replace(problem, eps=self._schedule.at(self._schedule.reach, 0) * problem.eps))
        found = no_point_yet(x)
        control = self._rule(problem, 1.0).initial(found.loss, x, self._schedule.staged, problem.eps)
        return State(x, x, found.state(), ops.zeros_like(x), found.state(), control)

    def advance(self, problem: Problem, i: Any, state: "State") -> "State":
        steps = self._schedule
        rule = self._rule(problem, 0.05 if self.returns == "highest_loss" else 0.2)
        first, last, due, counts = (
            steps.at(column, i) for column in (steps.first, steps.last, steps.due, steps.counts)
        )
        eps = steps.at(steps.reach, i) * problem.eps if steps.staged else problem.eps

        x = state.x
        begins = isinstance(i, int) and i == 0
        point = self._point(problem, x)
        loss, correct, gradient = problem.gradient(point, start=begins)
        visited = Found(point, loss, correct)
        initial = rule.initial(loss, x, steps.staged, eps)
        if first is True:
            best, best_gradient, control = visited, gradient, initial
        else:
            best = Found(*state.best)
            if first is not False:  # the best of an earlier stage is no match
                best = Found(best.x, ops.where(first, -float("inf"), best.loss), best.correct)
            best_gradient = choose(loss > best.loss, gradient, state.best_gradient)
            best = best.merge(visited, "highest_loss")
            control, restart = rule.decide(due, state.control, loss, best, eps)
            if first is not False:
                control = tuple(ops.where(first, a, b) for a, b in zip(initial, control))
                restart = ops.logical_and(restart, ops.logical_not(first))
            x, gradient = choose(restart, best.x, x), choose(restart, best_gradient, gradient)

        if self.returns == "highest_loss" and not steps.staged:
            answer = best
        elif begins and counts:
            answer = visited
        elif begins:  # outside of the ball: it only tells whether the attack could begin
            loss = ops.where(ops.isnan(loss), loss, -float("inf"))
            answer = Found(problem.x, loss, ops.ones_like(correct))
        else:
            answer = Found(*state.answer).merge(visited, self.returns, counts)
        moves, previous = control, state.previous
        if steps.staged and last is not False:
            x = choose(last, best.x, x)
            moves, previous = (ops.where(last, 0.0, control[0]), *control[1:]), choose(last, x, previous)
        ahead = rule.step(first, moves, x, previous, gradient, eps)
        return State(ahead, x, best.state(), best_gradient, answer.state(), control)

    def run(self, problem: Problem) -> Found:
        state = self.advance(problem, 0, self.begin(problem))
        state = repeat(1, self.evaluations - 1, lambda i, state: self.advance(problem, i, state), state)  # type: ignore[assignment]
        # The last point needs no gradient.
        last = self._point(problem, state.x)
        return Found(*state.answer).merge(Found(last, *problem.value(last)), self.returns)

    def _point(self, problem: Problem, x: Tensor) -> Tensor:
        """The point that is looked at where the steps have led to `x`."""
        return on_8_bit_grid(problem.norm, x, problem.x, problem.eps) if self.eight_bit else x

    def outcome(self, problem: Problem, state: "State") -> Found:
        return Found(*state.answer)

    def arguments(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("n_iter", "schedule", "tracked_loss", "eight_bit")}
        return {**super().arguments(), **own}
