"""Per-image losses that an attack maximises: (logits, labels) -> float32 of shape (batch,).

Logits are (batch, classes). Labels are class indices, shape (batch,), or soft labels, shape (batch, classes); margin
losses take the largest entry of a soft label as the class. Of logits (batch, height, width, classes) and a class for
each pixel, (batch, height, width), the losses without a target are means over the pixels (`dense_labels`).
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_robust.checks import check_choice
from keras_robust.dense_labels import averaged_over_pixels, is_dense, mean_over_pixels
from keras_robust.types import Tensor


def class_of(labels: Tensor) -> Tensor:
    """Class indices, int32 of shape (batch,), or (batch, height, width), from class indices or soft labels."""
    return ops.cast(ops.argmax(labels, axis=-1) if len(labels.shape) == 2 else labels, "int32")


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of each image's labels that have the largest logit, float32 (batch,); NaN logits are not correct.

    That is 1 or 0 where an image has one label; of dense labels the share among the pixels that count, 1 without any.
    """
    missed = ops.not_equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), class_of(labels))
    missed = ops.cast(ops.logical_or(missed, ops.any(ops.isnan(logits), axis=-1)), "float32")
    return 1.0 - (mean_over_pixels(missed, labels) if is_dense(labels) else missed)


def _at(logits: Tensor, index: Tensor) -> Tensor:
    return ops.take_along_axis(logits, index[:, None], axis=-1)[:, 0]


def _own(logits: Tensor, y: Tensor) -> Tensor:
    """Where the label's class is: booleans (batch, classes)."""
    return ops.equal(ops.arange(logits.shape[-1], dtype="int32")[None], y[:, None])


def _others(logits: Tensor, y: Tensor) -> Tensor:
    """The logits with that of the label out of the race."""
    return ops.where(_own(logits, y), -float("inf"), logits)


@averaged_over_pixels
def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the softmax of `logits` against hard or soft labels.

    Example:
        >>> float(cross_entropy(keras.ops.zeros((1, 4)), keras.ops.array([2]))[0])   # log 4
        1.3862943649291992
    """
    logits = ops.cast(logits, "float32")
    y = class_of(labels)
    z_y = _at(logits, y)
    # log(1 + sum of exp(z_k - z_y) over the other classes). log(sum of exp(z_k)) - z_y would cancel where the model is
    # sure: loss and gradient keep their first digits only, then vanish, and an attack mistakes that for robustness.
    others = ops.logsumexp(_others(logits, y), axis=-1)
    value = ops.where(ops.isfinite(z_y), ops.softplus(others - z_y), float("nan"))
    if len(labels.shape) == 1:
        return value
    labels = ops.cast(labels, "float32")
    rest = ops.where(_own(logits, y), 0.0, labels)
    return ops.sum(labels, axis=-1) * value + ops.sum(rest * (z_y[:, None] - logits), axis=-1)


@averaged_over_pixels
def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio (Croce & Hein 2020, equation 6): invariant to shift and scale of the logits.

    Needs three classes or more. With z the logits and z_1 >= z_2 >= z_3 the largest ones:
    -(z_y - max_{i != y} z_i) / (z_1 - z_3).
    """
    _need_classes(logits, 3, "dlr")
    logits = ops.cast(logits, "float32")
    y = class_of(labels)
    top, index = ops.top_k(logits, 3)
    # By index, not by value, and from one sort: tied logits come in any order.
    first = ops.equal(ops.cast(index[:, 0], "int32"), y)
    other = ops.where(first, top[:, 1], top[:, 0])
    return (other - _at(logits, y)) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Targeted difference of logits ratio (Croce & Hein 2020, equation 7); needs four classes or more.

    `targets` are class indices of shape (batch,): -(z_y - z_t) / (z_1 - (z_3 + z_4) / 2).
    """
    _need_classes(logits, 4, "targeted dlr")
    logits = ops.cast(logits, "float32")
    top, _ = ops.top_k(logits, 4)
    return targeted_margin(logits, labels, targets) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)


def _need_classes(logits: Tensor, count: int, loss: str) -> None:
    classes = logits.shape[-1]
    if classes is not None and classes < count:
        raise ValueError(f"loss {loss!r} needs at least {count} classes; the model has {classes}. Use 'ce'.")


@averaged_over_pixels
def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest logit of another class minus that of the label: positive where misclassified."""
    logits = ops.cast(logits, "float32")
    y = class_of(labels)
    return ops.max(_others(logits, y), axis=-1) - _at(logits, y)


def targeted_margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The logit of the target class minus that of the label: positive where the target beats the label."""
    logits = ops.cast(logits, "float32")
    return _at(logits, ops.cast(targets, "int32")) - _at(logits, class_of(labels))


def dlr_towards(logits: Tensor, goals: Tensor) -> Tensor:
    """Difference of logits ratio that pulls to a class, `goals` (batch,); needs four classes or more.

    (z_g - max_{i != g} z_i) / (z_1 - (z_3 + z_4) / 2): `dlr` negated is constant where the goal is third, and an image
    that is to be taken for it often begins there.
    """
    _need_classes(logits, 4, "dlr towards a class")
    logits = ops.cast(logits, "float32")
    top, _ = ops.top_k(logits, 4)
    return -margin(logits, goals) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)


def towards(loss: Callable) -> Callable:
    """The loss that pulls to a class, (logits, goals) -> (batch,), where `loss` pushes away from it."""
    return dlr_towards if loss is dlr else lambda logits, goals: -loss(logits, goals)


def targets(logits: Tensor, labels: Tensor) -> Tensor:
    """The classes other than the label, from the highest logit to the lowest: int32 (batch, classes - 1)."""
    logits = ops.cast(logits, "float32")
    order = ops.argsort(-_others(logits, class_of(labels)), axis=-1)
    return ops.cast(order[:, :-1], "int32")


LOSSES: dict[str, Callable] = {
    "ce": cross_entropy,
    "dlr": dlr,
    "margin": margin,
    "targeted-dlr": targeted_dlr,
    "targeted-margin": targeted_margin,
}
# Those that take (logits, labels, targets).
TARGETED = ("targeted-dlr", "targeted-margin")


def get(loss: Any) -> Callable:
    """The loss function of a name in `LOSSES`, or the callable itself.

    Raises:
        ValueError: an unknown name, something that is not callable, or a loss of Keras, which takes labels first.
    """
    if callable(loss):
        if isinstance(loss, keras.losses.Loss) or str(getattr(loss, "__module__", "")).startswith("keras."):
            raise ValueError(f"loss must take (logits, labels), Keras' losses take the reverse; received {loss!r}.")
        return loss
    return LOSSES[check_choice("loss", loss, LOSSES)]
