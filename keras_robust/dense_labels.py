"""Dense labels, one class for each pixel: which pixels count, and losses of classification as means over them.

A label of `IGNORED` marks a pixel that belongs to no class: it counts in no loss and no accuracy.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from keras import ops

from keras_robust.types import Tensor

IGNORED = -1


def is_dense(labels: Any) -> bool:
    """Whether labels are those of pixels, (batch, height, width), rather than of images."""
    return len(labels.shape) == 3


def counted(labels: Tensor) -> Tensor:
    """Which pixels count, booleans (batch, height, width)."""
    return labels != IGNORED


def mean_over_pixels(values: Tensor, labels: Tensor) -> Tensor:
    """Mean of each image's values (batch, height, width) over pixels that count, float32 (batch,); 0 without any."""
    counts = counted(labels)
    total = ops.sum(ops.where(counts, values, 0.0), axis=(1, 2))
    return total / ops.maximum(ops.sum(ops.cast(counts, "float32"), axis=(1, 2)), 1.0)


def of_pixels(loss: Callable, logits: Tensor, labels: Tensor) -> Tensor:
    """A loss of classification, (logits (n, classes), labels (n,)) to (n,), of each pixel: (batch, height, width).

    That of pixels that do not count is the one for class 0.
    """
    rows = ops.reshape(logits, (-1, logits.shape[-1]))
    values = loss(rows, ops.reshape(ops.maximum(ops.cast(labels, "int32"), 0), (-1,)))
    return ops.reshape(values, ops.shape(labels))


def averaged_over_pixels(loss: Callable) -> Callable:
    """A loss of classification that is also one of dense labels: for each image the mean over its pixels that count."""

    @wraps(loss)
    def per_image(logits: Tensor, labels: Tensor) -> Tensor:
        if not is_dense(labels):
            return loss(logits, labels)
        return mean_over_pixels(of_pixels(loss, logits, labels), labels)

    return per_image
