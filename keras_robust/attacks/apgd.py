"""Auto-PGD: projected gradient ascent that sets its own step size (Croce & Hein 2020; for L1, Croce & Hein 2021)."""

import math

import keras
from keras import ops

from keras_robust.attacks.base import Attack, Found, choose, repeat
from keras_robust.checks import check_count
from keras_robust.threat import per_example


def checkpoints(n_iter):
    """Lengths of the intervals between step-size decisions: .22 n iterations, each .03 n fewer, down to .06 n.

    Returns:
        A list `due` of n_iter entries: at the end of an interval its length, elsewhere 0.
    """
    length, shorter, least = (max(int(part * n_iter), 1) for part in (0.22, 0.03, 0.06))
    due = []
    while len(due) < n_iter:
        due += [0] * (length - 1) + [length]
        length = max(length - shorter, least)
    return due[:n_iter]


class MomentumRule:
    """Steps with momentum; the step size halves where the loss stops rising. Linf and L2."""

    def __init__(self, problem, n_iter, share):
        self.problem = problem
        self.due = checkpoints(n_iter)

    def initial(self, loss):
        """Step size; steps of this interval that raised the loss; loss of the step before (0 before the first one);
        best loss at the last checkpoint; whether the step was halved there (so that it cannot stall at the first)."""
        zero = ops.zeros_like(loss)
        return zero + 2.0 * self.problem.eps, zero, zero, loss, ops.ones_like(loss)

    def step(self, i, control, x, previous, gradient):
        norm, centre, eps = self.problem.norm, self.problem.x, self.problem.eps
        z = norm.retract(x + per_example(control[0], x) * norm.step(gradient), centre, eps)
        a = ops.where(ops.equal(i, 0), 1.0, 0.75)
        return norm.retract(x + a * (z - x) + (1.0 - a) * (x - previous), centre, eps)

    def decide(self, i, control, loss, best):
        """The next control state, and where to go on from the best point."""
        size, raised, loss_before, best_then, halved_then = control
        length = ops.take(ops.convert_to_tensor(self.due, dtype="float32"), i)
        due = length > 0.0
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

    def __init__(self, problem, n_iter, share):
        self.problem = problem
        self.period = max(int(0.04 * n_iter), 1)
        self.share = share

    def initial(self, loss):
        """Step size; share of the entries that move; non-zero entries of the best perturbation at the last check."""
        zero = ops.zeros_like(loss)
        return zero + self.problem.eps, zero + self.share, zero + self._entries()

    def step(self, i, control, x, previous, gradient):
        norm = self.problem.norm
        direction = norm.sparse_step(gradient, control[1])
        return norm.project(x + per_example(control[0], x) * direction, self.problem.x, self.problem.eps)

    def decide(self, i, control, loss, best):
        """The next control state, and where to go on from the best point."""
        size, share, support_then = control
        eps = self.problem.eps
        changed = ops.cast(ops.not_equal(best.x, self.problem.x), "float32")
        support = ops.sum(changed, axis=tuple(range(1, len(changed.shape))))
        due = ops.equal((i + 1) % self.period, 0)
        sparser = ops.logical_and(due, support < 0.95 * support_then)
        size_now = ops.clip(ops.where(sparser, eps, size / 1.5), eps / 10.0, eps)
        control = (
            ops.where(due, size_now, size),
            ops.where(due, support / self._entries() / 1.5, share),
            ops.where(due, support, support_then),
        )
        return control, sparser

    def _entries(self):
        return ops.cast(math.prod(ops.shape(self.problem.x)[1:]), "float32")


RULES = {"Linf": MomentumRule, "L2": MomentumRule, "L1": SparsityRule}


@keras.saving.register_keras_serializable("keras_robust")
class APGD(Attack):
    """Auto-PGD: projected gradient ascent without a step size to tune.

    Linf and L2: Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", section 3. L1: Croce & Hein 2021, "Mind the box", section 4; sparse steps whose first
    share of moving entries is 5 % with returns="highest_loss" (training), 20 % with "misclassified" (evaluation).

    Args:
        n_iter: gradient steps per run. Cost: n_iter + 1 forward and n_iter input-gradient passes.

    The other arguments are those of `Attack`. Without random start the result is deterministic.

    Example:
        >>> attack = APGD(ThreatModel("Linf", 4 / 255), n_iter=2)            # the paper's training attack
        >>> x_adv = attack(model, x, y)
        >>> strong = APGD(ThreatModel("L2", 2.0), n_iter=100, random_start=True, n_restarts=5, returns="misclassified")
    """

    def __init__(self, threat, n_iter=10, **options):
        super().__init__(threat, **options)
        self.n_iter = check_count("n_iter", n_iter)

    def run(self, problem, start):
        share = 0.05 if self.returns == "highest_loss" else 0.2
        rule = RULES[self.threat.norm](problem, self.n_iter, share)
        loss, correct, gradient = problem.gradient(start, start=True)
        best = Found(start, loss, correct)
        state = (start, start, gradient, best.state(), gradient, best.state(), rule.initial(loss))

        def iterate(i, state):
            x, previous, gradient, best, best_gradient, answer, control = state
            x, previous = rule.step(i, control, x, previous, gradient), x
            loss, correct, gradient = problem.gradient(x)
            rises = loss > best[1]
            visited = Found(x, loss, correct)
            best = Found(*best).merge(visited, "highest_loss")
            answer = best if self.returns == "highest_loss" else Found(*answer).merge(visited, self.returns)
            best_gradient = choose(rises, gradient, best_gradient)
            control, restart = rule.decide(i, control, loss, best)
            x = choose(restart, best.x, x)
            gradient = choose(restart, best_gradient, gradient)
            return x, previous, gradient, best.state(), best_gradient, answer.state(), control

        x, previous, gradient, _, _, answer, control = repeat(0, self.n_iter - 1, iterate, state)
        # The last point needs no gradient.
        x = rule.step(self.n_iter - 1, control, x, previous, gradient)
        return Found(*answer).merge(Found(x, *problem.value(x)), self.returns)

    def _arguments(self):
        return {**super()._arguments(), "n_iter": self.n_iter}
