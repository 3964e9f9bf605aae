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
        """Adds class indices (batch,); those of weight 0 do not count."""
        seen = ops.one_hot(ops.cast(classes, "int32"), self.num_classes, dtype="float32")
        if sample_weight is not None:
            seen = seen * ops.cast(ops.reshape(sample_weight, (-1, 1)) > 0, "float32")
        self.total.assign_add(ops.sum(seen, axis=0))

    def result(self) -> Tensor:
        """Share of the most frequent class."""
        return ops.max(self.total) / ops.maximum(ops.sum(self.total), 1.0)

    def counts(self) -> np.ndarray:
        """The counts, int (num_classes,)."""
        return np.rint(ops.convert_to_numpy(self.total)).astype(int)
