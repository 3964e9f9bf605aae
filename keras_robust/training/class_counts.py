"""Metric that counts classes, of predictions or labels, so that a model that answers one thing to all is seen."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust.types import Tensor


class ClassCounts(keras.metrics.Metric):
    """Counts of class indices since the last reset.

    Args:
        num_classes: number of classes.

    Example:
        >>> counts = ClassCounts(3, name="counts")
        >>> counts.update_state(np.array([0, 2, 2]))
        >>> counts.counts()
        array([1, 0, 2])
    """

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(dtype="float32", **options)
        self.num_classes = num_classes
        self.total = self.add_variable((num_classes,), initializer="zeros", name="total")

    def update_state(self, classes: Tensor, sample_weight: Tensor | None = None) -> None:
        """Adds class indices (batch,) or (batch, height, width); those below 0, and of weight 0, do not count."""
        classes = ops.cast(classes, "int32")
        if sample_weight is not None:
            weighted = ops.reshape(sample_weight, (-1,) + (1,) * (len(classes.shape) - 1)) > 0
            classes = ops.where(weighted, classes, -1)
        # What does not count goes to a class beyond the last.
        place = ops.reshape(ops.where(classes < 0, self.num_classes, classes), (-1,))
        counts = ops.segment_sum(ops.ones_like(place, dtype="float32"), place, self.num_classes + 1)
        self.total.assign_add(counts[: self.num_classes])

    def result(self) -> Tensor:
        """Share of the most frequent class."""
        return ops.max(self.total) / ops.maximum(ops.sum(self.total), 1.0)

    def counts(self) -> np.ndarray:
        """The counts, int (num_classes,)."""
        return np.rint(ops.convert_to_numpy(self.total)).astype(int)
