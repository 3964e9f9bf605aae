"""Projected gradient descent with a fixed step (Madry et al. 2018) and its one-step case, FGSM."""

import keras

from keras_robust.attacks.base import RETURNS, Attack, Found, repeat
from keras_robust.checks import check_count, check_number


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

    def __init__(self, threat, n_iter=10, step_size=None, **options):
        super().__init__(threat, **options)
        self.n_iter = check_count("n_iter", n_iter)
        self.step_size = None if step_size is None else check_number("step_size", step_size)

    def run(self, problem):
        start = self.start(problem)
        size = self._relative_step() * problem.eps if self.step_size is None else self.step_size

        def step(x, gradient):
            return problem.norm.project(x + size * problem.norm.step(gradient), problem.x, problem.eps)

        if self.returns == "last":
            (x,) = repeat(0, self.n_iter, lambda i, state: (step(state[0], problem.gradient(state[0])[2]),), (start,))
            return Found(x, None, None)

        loss, correct, gradient = problem.gradient(start, start=True)

        def iterate(i, state):
            x, gradient, answer = state
            x = step(x, gradient)
            loss, correct, gradient = problem.gradient(x)
            return x, gradient, Found(*answer).merge(Found(x, loss, correct), self.returns).state()

        first = (start, gradient, Found(start, loss, correct).state())
        x, gradient, answer = repeat(0, self.n_iter - 1, iterate, first)
        x = step(x, gradient)
        return Found(*answer).merge(Found(x, *problem.value(x)), self.returns)

    def _relative_step(self):
        return 2.5 / self.n_iter

    def _arguments(self):
        return {**super()._arguments(), "n_iter": self.n_iter, "step_size": self.step_size}


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

    def __init__(self, threat, step_size=None, **options):
        super().__init__(threat, n_iter=1, step_size=step_size, **options)

    def _relative_step(self):
        return 1.25 if self.random_start else 1.0

    def _arguments(self):
        arguments = super()._arguments()
        del arguments["n_iter"]
        return arguments
