"""The problem that an attack works on, one batch of images and a frozen model, and what it finds there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_robust import backend, losses
from keras_robust.batch_checks import check_outputs
from keras_robust.dense_labels import is_dense
from keras_robust.norms import Norm, choose
from keras_robust.types import Tensor

if TYPE_CHECKING:
    from keras_robust.attacks.apgd import State


UNROLLED_ITERATIONS = 4
LARGEST_FLOAT16 = 65504.0


def repeat(first: int, last: int, body: Callable, state: "State | tuple[Any, ...]") -> "State | tuple[Any, ...]":
    """`state = body(i, state)` for i in [first, last): unrolled while short, as in training, else a graph loop."""
    if last - first > UNROLLED_ITERATIONS:
        return ops.fori_loop(first, last, body, state)
    for i in range(first, last):
        state = body(i, state)
    return state


@dataclass(frozen=True)
class Problem:
    """One batch under attack: the frozen model, images, labels, and what counts as harm.

    `x` is float32 (batch, height, width, channels) in [0, 1]; `y` class indices, soft labels or one class for each
    pixel; `eps` a number, a scalar tensor or a radius for each image, (batch,); `loss_scale` multiplies the loss before
    it is differentiated, against underflow in float16; `keys` are those of the examples' random draws in this attempt;
    `restart` counts the attempts at the same target; `target`, class indices (batch,), is what a targeted attempt aims
    at; `goal`, class indices (batch,), what the model is to take the images for, or None where any class but the label
    will do; `eot_iter` the number of gradients to average where the model's output is random; `observe(losses,
    gradient, correct)` is told of the first point of a run; `tracked_loss` is what points are compared by, if not by
    the `loss` that is differentiated.
    """

    model: Callable
    x: Any
    y: Any
    norm: Norm
    eps: Any
    loss: Callable
    loss_scale: float = 1.0
    keys: Any = None
    restart: Any = 0
    target: Any = None
    goal: Any = None
    eot_iter: int = 1
    observe: Callable | None = None
    tracked_loss: Callable | None = None

    def logits(self, x: Tensor) -> Tensor:
        """Logits of images, float32 (batch, classes) or with dense labels (batch, height, width, classes), checked."""
        logits = self.model(x)
        check_outputs(logits, x, dense=is_dense(self.y))
        return ops.cast(logits, "float32")

    def value(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tracked loss (batch,) and correctness, the share of each image's labels that are right (batch,).

        With a goal every class but this one counts as right.
        """
        return self._judge(self.tracked_loss or self.loss, self.logits(x))

    def _judge(self, loss: Callable, logits: Tensor) -> tuple[Tensor, Tensor]:
        """A loss (batch,), and correctness (batch,)."""
        if self.target is not None:
            values = loss(logits, self.y, self.target)
        elif self.goal is not None:
            values = losses.towards(loss)(logits, self.goal)
        else:
            values = loss(logits, self.y)
        if len(values.shape) != 1:
            raise ValueError(f"loss must return one value per image, shape (batch,); received {tuple(values.shape)}.")
        if self.goal is None:
            return values, losses.correct(logits, self.y)
        return values, 1.0 - losses.correct(logits, self.goal)

    def gradient(self, x: Tensor, start: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Tracked loss, correctness and the gradient of each image's own loss, in the shape of `x`.

        At the start of a run an image whose gradient is not finite gets the loss NaN: an attack that cannot take its
        first step must not pass for a robust model. Later on such entries count as zero.
        """

        def scaled(x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            logits = self.logits(x)
            values, correct = self._judge(self.loss, logits)
            tracked = values if self.tracked_loss is None else self._judge(self.tracked_loss, logits)[0]
            return values * self.loss_scale, (tracked, correct)

        # The scale is a power of two and rounds nothing; no norm nor sign of a gradient depends on it.
        _, (values, correct), gradient = backend.input_gradient(scaled, x)
        if self.eot_iter > 1:

            def add(_: Tensor, total: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
                _, (again, _), more = backend.input_gradient(scaled, x)
                return total[0] + again, total[1] + more

            values, gradient = repeat(1, self.eot_iter, add, (values, gradient))
            values, gradient = values / self.eot_iter, gradient / self.eot_iter
        if start:
            usable = ops.logical_not(ops.any(ops.isnan(gradient), axis=tuple(range(1, len(x.shape)))))
            values = ops.where(usable, values, float("nan"))
            if self.observe is not None:
                self.observe(values, gradient, correct)
        # What overflowed float16 keeps its sign and a size whose square is finite.
        return values, correct, ops.nan_to_num(gradient, nan=0.0, posinf=LARGEST_FLOAT16, neginf=-LARGEST_FLOAT16)


@dataclass(frozen=True)
class Found:
    """The best adversarial image of each example so far, its loss, and the share of its labels that are still right."""

    x: Any
    loss: Any
    correct: Any

    def merge(self, other: "Found", returns: str, counts: Any = True) -> "Found":
        """Example by example the better of two: the higher loss or, for "misclassified", that with fewer labels right.

        Of two with equally many the later, where no label is right, as in the published evaluation of classifiers; else
        that of higher loss.

        Where `counts`, (batch,) or a bool, does not hold, `other` is out of the question.
        """
        better = other.loss > self.loss
        if returns == "misclassified":
            fewer, equally_many = other.correct < self.correct, ops.equal(other.correct, self.correct)
            better = ops.logical_or(fewer, ops.logical_and(equally_many, ops.logical_or(other.misclassified, better)))
        if counts is not True:
            better = ops.logical_and(better, counts)
        return Found(
            choose(better, other.x, self.x),
            ops.where(better, other.loss, self.loss),
            ops.where(better, other.correct, self.correct),
        )

    @property
    def misclassified(self) -> Tensor:
        """Whether no label of an example is right any more, booleans (batch,)."""
        return ops.equal(self.correct, 0.0)

    def state(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.x, self.loss, self.correct


def loss_scale(model: Callable | keras.Layer, loss: Callable | str) -> float:
    """What to multiply the attack's loss by so that a float16 model's input gradients do not underflow to zero.

    The slope of the cross-entropy in the logits is at most 1 and falls with the confidence of the model; that of
    margin losses rises as the gap between the logits falls, and scaled would overflow.
    """
    return 1024.0 if loss == "ce" and getattr(model, "compute_dtype", None) == "float16" else 1.0


def no_point_yet(x: Tensor) -> "Found":
    """The `Found` of a run that has not evaluated anything."""
    loss = ops.full_like(x[:, 0, 0, 0], -float("inf"))
    return Found(x, loss, ops.ones_like(loss))
