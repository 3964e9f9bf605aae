"""Base of all attacks: checks before and after, restarts, and the choice among the runs."""

import warnings
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust import backend, losses, random
from keras_robust.attacks.batching import SlotRunner
from keras_robust.attacks.problem import Found, Problem, loss_scale, no_point_yet, repeat
from keras_robust.batch_checks import check_batch, check_outputs, check_target
from keras_robust.checks import check_bool, check_choice, check_count
from keras_robust.threat import ThreatModel
from keras_robust.types import Tensor

RETURNS = ("highest_loss", "misclassified", "last")
CHUNK = 10  # at most so many iterations between two looks at which images are done


def even_chunk(evaluations: int) -> int:
    """Evaluations between two looks, so that as few as can be are computed beyond the last."""
    return -(-evaluations // -(-evaluations // CHUNK))


class Attack:
    """Searches the threat model's ball around each image for a point that the model gets wrong.

    Subclasses write, in `keras.ops` with static shapes, `run`; for evaluation at full speed, where each image of a
    batch may be at another iteration, also `begin`, `advance` and `outcome`.

    Args:
        threat: the `ThreatModel`.
        loss: "ce" (cross-entropy), "dlr" (difference of logits ratio), "targeted-dlr" or a callable
            (logits, labels) -> (batch,).
        random_start: start at a random point of the ball rather than at the image. The image itself then counts as
            one more candidate for "highest_loss" (one more forward pass).
        n_restarts: runs per image (and target), each from another random point.
        seed: of the random points; the same seed, image position and image give the same result on any backend, in
            any batch size.
        returns: "highest_loss": of all points visited, the one of highest loss (training); "misclassified": the last
            misclassified point where there is one, else the one of highest loss (evaluation: under cross-entropy a
            point of lower loss can be the misclassified one), of dense labels the one with the fewest pixels right;
            "last": the last point, unevaluated (PGD and FGSM).
        n_target_classes: of a targeted loss: the classes to aim at in turn, from the one of second highest logit on.
        eot_iter: gradients averaged at each point, for models whose output is random (expectation over
            transformation: Athalye et al. 2018).

    Raises:
        ValueError: a value that is not accepted.

    Calling it, `attack(model, x, y)`, returns `x_adv`, float32 in the shape of `x`, in the ball and in [0, 1]:

    * `model`: a Keras model, which is run in inference mode and left unchanged (compiled once per shape on TensorFlow
      and JAX), or any other callable from images to logits of shape (batch, classes).
    * `x`: float images (batch, height, width, channels) in [0, 1], numpy (numpy is returned) or backend tensors.
    * `y`: class indices (batch,) or soft labels (batch, classes). PGD, FGSM, N-FGSM and APGD also take one class for
      each pixel, (batch, height, width), -1 where it does not count, with a model to logits (batch, height, width,
      classes).
    * `target`: a class, or class indices (batch,): what the model is to take the images for; if not given, any class
      but the label will do. Not with a class for each pixel.
    * `first_index`: place of the first image in its data set, by which random draws are keyed.
    """

    supported_returns: tuple[str, ...] = RETURNS[:2]
    supported_norms: tuple[str, ...] = ("Linf", "L2", "L1")
    takes_dense_labels = False  # whether it attacks models that classify each pixel
    minimises_norm = False  # whether it looks for the nearest point, so that any radius makes sense, and none

    def __init__(
        self,
        threat: ThreatModel | float,
        loss: Any = "ce",
        random_start: bool | str = False,
        n_restarts: int = 1,
        seed: int = 0,
        returns: str = "highest_loss",
        n_target_classes: int = 9,
        eot_iter: int = 1,
    ) -> None:
        if not isinstance(threat, ThreatModel):
            raise ValueError(f"threat must be a ThreatModel, e.g. ThreatModel('Linf', 4 / 255); received {threat!r}.")
        if threat.norm not in self.supported_norms:
            known = ", ".join(self.supported_norms)
            raise ValueError(f"threat must have one of the norms {known} for {type(self).__name__}; received {threat}.")
        if not (threat.is_bounded or self.minimises_norm):
            raise ValueError(f"threat must have a finite eps for {type(self).__name__}; received {threat}.")
        self.threat = threat
        self.loss = loss
        self.loss_function = losses.get(loss)
        self.random_start = check_bool("random_start", random_start)
        self.n_restarts = check_count("n_restarts", n_restarts)
        self.seed = check_count("seed", seed, least=0)
        self.returns = check_choice("returns", returns, self.supported_returns)
        self.n_target_classes = check_count("n_target_classes", n_target_classes)
        self.eot_iter = check_count("eot_iter", eot_iter)
        if self.n_restarts > 1 and not self.random_start:
            raise ValueError(
                f"n_restarts={n_restarts} needs random_start=True: without it every restart repeats the first run."
            )
        if self.returns == "last" and (self.n_restarts > 1 or self.targeted):
            raise ValueError("returns='last' takes one run: unevaluated points cannot be compared.")
        self._compiled: Any = weakref.WeakKeyDictionary()

    @property
    def targeted(self) -> bool:
        """Whether each run aims at one class."""
        return self.loss in losses.TARGETED

    @property
    def name(self) -> str:
        """What the attack is called in results."""
        loss = self.loss if isinstance(self.loss, str) else getattr(self.loss, "__name__", "loss")
        return f"{type(self).__name__}-{loss}".lower()

    def propagations(self, num_classes: int) -> int:
        """Forward and backward passes, each counted as one, that an evaluation of the model takes."""
        return 2 * self.eot_iter

    def n_targets(self, num_classes: int) -> int:
        """Number of classes that are aimed at in turn, 1 for an untargeted attack."""
        return min(self.n_target_classes, num_classes - 1) if self.targeted else 1

    def start(self, problem: Problem) -> Tensor:
        """The first point of a run."""
        if not self.random_start:
            return problem.x
        return problem.norm.random(problem.keys, problem.x, problem.eps)

    def run(self, problem: Any) -> Any:
        """One run: a `Found`, or for returns="last" one whose loss and correctness are None."""
        raise NotImplementedError

    # A run in pieces, so that an evaluation can stop it early: here in a single one.
    evaluations = 1
    chunk = 1  # evaluations between two looks at which images are done

    def begin(self, problem: Problem) -> Any:
        """State of a run before its first evaluation of the model: nested tuples of tensors (batch, ...)."""
        return no_point_yet(problem.x).state()

    def advance(self, problem: Problem, i: Tensor, state: Any) -> Any:
        """The state after evaluation `i`, an int or int32 of shape (batch,) where each image has a place of its own.

        From `evaluations` on nothing may change in the outcome.
        """
        return self.run(problem).state()

    def outcome(self, problem: Problem, state: Any) -> Found:
        """The `Found` of a state."""
        return Found(*state)

    def misclassified(self, problem: Problem, state: Any) -> Tensor:
        """Whether the outcome of a state is misclassified, (batch,)."""
        return self.outcome(problem, state).misclassified

    def steps(self, problem: Problem, i: Any, count: int) -> Callable:
        """What does evaluations i, i + 1, ..., i + count - 1 in turn: a function (k, state) -> state."""
        return lambda k, state: self.advance(problem, i + k, state)

    def iterate(self, problem: Problem, i: Any, state: Any, count: int) -> tuple[Any, ...]:
        """The state after `count` evaluations from `i` on; how many of these came before success, int32 (batch,)."""
        step = self.steps(problem, i, count)

        def body(k: Any, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            state, in_vain = carry
            state = step(k, state)
            return state, in_vain + ops.cast(ops.logical_not(self.misclassified(problem, state)), "int32")

        return repeat(0, count, body, (state, ops.zeros_like(problem.x[:, 0, 0, 0], dtype="int32")))

    def runner(self, model: Any, stream: int, trace: bool, side_by_side: bool, aims: bool) -> Any:
        """What runs this attack on many images; see `SlotRunner`."""
        return SlotRunner(self, model, stream, trace, side_by_side, aims)

    def __call__(self, model: Any, x: Any, y: Any, target: Any = None, first_index: int = 0) -> Any:
        as_numpy = isinstance(x, np.ndarray)
        x, y = check_batch(model, x, y, dense=self.takes_dense_labels and not self.targeted)
        goal = () if target is None else (check_target(model, x, target),)
        if not self.minimises_norm:
            self.threat.check_images(x.shape[1:])
        index = check_count("first_index", first_index, least=0) + ops.arange(x.shape[0], dtype="int32")
        x_adv, loss, inside, zero = self._compile(model)(x, y, index, *goal)
        if loss is not None and not np.isfinite(ops.convert_to_numpy(loss)).all():
            bad = int((~np.isfinite(ops.convert_to_numpy(loss))).sum())
            raise ValueError(
                f"model must have finite logits and gradients; those of {bad} of {x.shape[0]} images is not finite."
            )
        if not ops.convert_to_numpy(inside).all():
            raise RuntimeError(f"{type(self).__name__} left the threat model {self.threat}: please report this.")
        hidden = float(np.mean(ops.convert_to_numpy(zero)))
        if hidden:
            warnings.warn(zero_gradients(hidden), stacklevel=2)
        return ops.convert_to_numpy(x_adv) if as_numpy else x_adv

    def perturb(
        self,
        model: Any,
        x: Tensor,
        y: Tensor,
        keys: tuple[Tensor, Tensor],
        eps: Any = None,
        loss_scale: float = 1.0,
        observe: Callable | None = None,
        goal: Tensor | None = None,
    ) -> tuple[Any, ...]:
        """The attack inside a compiled step: no checks, `eps` may be a tensor; returns (x_adv, loss or None).

        `observe(losses, gradient, correct)` is called with loss (batch,), gradient and correctness (batch,) at the
        first point of the first run.
        """
        problem = replace(self.problem(model, x, y, eps, loss_scale), goal=goal)
        n_targets, targets = 1, None
        if self.targeted and goal is not None:
            targets = goal[:, None]
        elif self.targeted:
            logits = model(x)
            check_outputs(logits, x)
            logits = ops.cast(logits, "float32")
            targets, n_targets = losses.targets(logits, y), self.n_targets(logits.shape[-1])

        def attempt(number: int, observe: Callable | None = None) -> Found:
            target = None if targets is None else ops.take(targets, number // self.n_restarts, axis=1)
            return self.run(replace(self.attempt(problem, keys, number, target), observe=observe))

        if self.returns == "last":
            return problem.norm.project(attempt(0, observe).x, x, problem.eps), None
        first = attempt(0, observe)
        if self.random_start:
            untargeted = problem if targets is None else replace(problem, target=targets[:, 0])
            first = Found(x, *untargeted.value(x)).merge(first, self.returns)

        def merge(i: int, state: Any) -> tuple[Tensor, Tensor, Tensor]:
            return Found(*state).merge(attempt(i), self.returns).state()

        x_adv, loss, _ = repeat(1, n_targets * self.n_restarts, merge, first.state())
        return problem.norm.project(x_adv, x, problem.eps), loss

    def problem(self, model: Any, x: Tensor, y: Tensor, eps: Any = None, loss_scale: float = 1.0) -> Problem:
        """What this attack is up against on one batch."""
        eps = self.threat.radius if eps is None else eps
        loss = self.loss_function
        return Problem(model, x, y, self.threat.geometry, eps, loss, loss_scale, eot_iter=self.eot_iter)

    def attempt(self, problem: Problem, keys: tuple[Tensor, Tensor], number: Any, target: Tensor | None) -> Problem:
        """The problem as run `number`, an int or (batch,), meets it: all restarts at one target, then at the next."""
        return replace(problem, keys=random.fold_in(keys, number), restart=number % self.n_restarts, target=target)

    def _compile(self, model: Callable | keras.Model) -> Callable:
        try:
            cached = self._compiled.get(model)
        except TypeError:  # a callable that cannot be weakly referenced or hashed
            return backend.compile(self._checked_run, model)
        if cached is None:
            scale = loss_scale(model, self.loss)
            cached = backend.compile(lambda *arguments: self._checked_run(*arguments, loss_scale=scale), model)  # type: ignore[misc]
            self._compiled[model] = cached
        return cached

    def _checked_run(
        self, model: Any, x: Tensor, y: Tensor, index: Tensor, goal: Tensor | None = None, loss_scale: float = 1.0
    ) -> tuple[Any, ...]:
        zero: list[Tensor] = []
        keys = random.example_keys(self.seed, 0, index)

        def observe(_: Tensor, gradient: Tensor, correct: Tensor) -> None:
            # What is misclassified needs no attack, and DLR is constant on some of it by its definition.
            zero.append(ops.logical_and(correct > 0.0, is_zero(gradient)))

        x_adv, loss = self.perturb(model, x, y, keys, loss_scale=loss_scale, observe=observe, goal=goal)
        inside = self.threat.geometry.contains(x_adv, x, self.threat.radius)
        return x_adv, loss, inside, zero[0] if zero else ops.zeros_like(inside)

    def with_threat(self, threat: ThreatModel) -> Any:
        """The same attack under another threat model."""
        return type(self)(**{**self.arguments(), "threat": threat})

    def arguments(self) -> dict[str, Any]:
        """What this attack was made of: the arguments of its constructor by name."""
        return {
            "threat": self.threat,
            "loss": self.loss,
            "random_start": self.random_start,
            "n_restarts": self.n_restarts,
            "seed": self.seed,
            "returns": self.returns,
            "n_target_classes": self.n_target_classes,
            "eot_iter": self.eot_iter,
        }

    def get_config(self) -> dict[str, Any]:
        arguments = self.arguments()
        arguments["threat"] = self.threat.get_config()
        serialize = keras.saving.serialize_keras_object
        return {name: serialize(value) if callable(value) else value for name, value in arguments.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        config = dict(config)
        threat, restore = ThreatModel(**config.pop("threat")), keras.saving.deserialize_keras_object
        return cls(
            threat=threat,
            **{name: restore(value) if isinstance(value, dict) else value for name, value in config.items()},
        )

    def __repr__(self) -> str:
        arguments = {**self.arguments(), "threat": str(self.threat)}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"


def is_zero(gradient: Tensor) -> Tensor:
    """Whether each example's gradient is zero in all entries, booleans (batch,)."""
    return ops.all(ops.equal(gradient, 0.0), axis=tuple(range(1, len(gradient.shape))))


def zero_gradients(share: float) -> str:
    """A warning about images whose loss has a gradient of zero."""
    return (
        f"Zero gradients: the gradient of the loss is zero for {share:.0%} of the images. Gradient attacks see nothing "
        "there; look at what Square finds, which needs no gradients, and for what hides the gradient."
    )
