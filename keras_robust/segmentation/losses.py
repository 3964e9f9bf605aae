"""Losses of dense labels that an attack maximises: (logits, labels) -> float32 (batch,), means over pixels that count.

Croce, Singh and Hein, "Towards Reliable Evaluation and Fast Training of Robust Semantic Segmentation Models", 2024,
section 3. Logits are (batch, height, width, classes), labels (batch, height, width), -1 for pixels that do not count.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust import losses
from keras_robust.checks import check_bool
from keras_robust.dense_labels import IGNORED, mean_over_pixels, of_pixels
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class CrossEntropy:
    """Cross-entropy of the pixels, balanced by class or of those alone that are still right, or both.

    Args:
        class_weights: None, or a number >= 0 for each class that a pixel's loss is multiplied by; see
            `balancing_weights`.
        only_correct: whether pixels that are misclassified count 0: what is wrong need not become more so, and the
            gradient goes to what is right ("masked" in the publication).

    Raises:
        ValueError: weights that are negative or not finite; on a call, another number of them than classes.

    Example:

    >>> logits, labels = keras.ops.zeros((1, 2, 2, 4)), keras.ops.array([[[0, -1], [1, 3]]])
    >>> loss = kr.segmentation.losses.CrossEntropy(only_correct=True)
    >>> float(loss(logits, labels)[0])  # of three pixels the first is right, log(4) / 3
    0.4620981
    """

    def __init__(self, class_weights: Sequence[float] | None = None, only_correct: bool = False) -> None:
        self.only_correct = check_bool("only_correct", only_correct)
        self.class_weights = None if class_weights is None else tuple(float(weight) for weight in class_weights)
        if self.class_weights is not None:
            given = np.array(self.class_weights)
            if not np.isfinite(given).all() or (given < 0).any() or not given.any():
                raise ValueError(f"class_weights must be finite numbers >= 0, one above; received {class_weights!r}.")

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        labels = ops.cast(labels, "int32")  # losses of Keras make floats of them
        values = of_pixels(losses.cross_entropy, logits, labels)
        if self.class_weights is not None:
            if len(self.class_weights) != logits.shape[-1]:
                raise ValueError(
                    f"class_weights must be one for each of the {logits.shape[-1]} classes; "
                    f"received {len(self.class_weights)}."
                )
            weights = ops.convert_to_tensor(np.array(self.class_weights, "float32"))
            values = values * ops.take(weights, ops.maximum(labels, 0))
        if self.only_correct:
            right = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), labels)
            values = ops.where(right, values, 0.0)
        return mean_over_pixels(values, labels)

    def __repr__(self) -> str:
        return f"CrossEntropy(class_weights={self.class_weights}, only_correct={self.only_correct})"

    def get_config(self) -> dict[str, Any]:
        return {"class_weights": self.class_weights, "only_correct": self.only_correct}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "CrossEntropy":
        return cls(**config)


@keras.saving.register_keras_serializable("keras_robust")
def jensen_shannon(logits: Tensor, labels: Tensor) -> Tensor:
    """Jensen-Shannon divergence between each pixel's prediction and its label, bounded by log 2.

    With the probability p of the label it is (2 log 2 + p log p - (1 + p) log(1 + p)) / 2, whose gradient vanishes as p
    goes to 0: pixels that are lost draw no attention from the others.

    Example:

    >>> logits = keras.ops.array([[[[0.0, -100.0]]]])
    >>> [round(float(jensen_shannon(logits, keras.ops.array([[[label]]]))[0]), 4) for label in (0, 1)]
    [0.0, 0.6931]
    """

    def of_images(logits: Tensor, labels: Tensor) -> Tensor:
        surprise = losses.cross_entropy(logits, labels)  # -log p
        p = ops.exp(-surprise)
        return 0.5 * (2.0 * math.log(2.0) - surprise * p - (1.0 + p) * ops.log1p(p))

    return mean_over_pixels(of_pixels(of_images, logits, labels), labels)


def balancing_weights(counts: np.ndarray) -> tuple[float, ...]:
    """A weight for each class in inverse proportion to its pixels; they sum to 1, those of absent classes are 0.

    Args:
        counts: pixels of each class, (classes,).

    Example:

    >>> balancing_weights(np.array([30, 10, 0]))
    (0.25, 0.75, 0.0)
    """
    counts = np.asarray(counts, "float64")
    inverse = np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0)
    return tuple((inverse / max(inverse.sum(), np.finfo(float).tiny)).tolist())


def class_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels of each class in labels of any shape, int64 (num_classes,); those that do not count are left out.

    Example:

    >>> class_counts(np.array([[0, 2], [-1, 2]]), 3)
    array([1, 0, 2])
    """
    labels = np.asarray(labels)
    return np.bincount(labels[labels != IGNORED].reshape(-1).astype("int64"), minlength=num_classes)
