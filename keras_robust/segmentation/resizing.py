"""Changes of a map's size: averages over a grid of cells, and bilinear interpolation to another map's size."""

from typing import Any

import keras
from keras import ops

from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class GridAverage(keras.layers.Layer):
    """Averages of a map over a grid of `cells` x `cells`, whatever the map's size (PyTorch's AdaptiveAvgPool2d).

    Of n rows cell i holds those from floor(i n / cells) to below ceil((i + 1) n / cells): neighbouring cells overlap
    where `cells` does not divide n, and repeat rows where n is the smaller.

    Args:
        cells: rows, and columns, of the grid.

    Shapes: `(batch, height, width, channels)` to `(batch, cells, cells, channels)`.

    Example:

    >>> tuple(GridAverage(6)(keras.random.uniform((2, 4, 15, 8))).shape)
    (2, 6, 6, 8)
    """

    def __init__(self, cells: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cells = cells

    def call(self, x: Tensor) -> Tensor:
        _, height, width, _ = ops.shape(x)
        x = ops.einsum("ih,bhwc->biwc", self._shares(height, x.dtype), x)
        return ops.einsum("jw,biwc->bijc", self._shares(width, x.dtype), x)

    def _shares(self, count: Any, dtype: Any) -> Tensor:
        """Share of each of `count` rows in the average of each cell, (cells, count)."""
        cell = ops.arange(self.cells, dtype="int32")[:, None]
        row = ops.arange(count, dtype="int32")[None]
        first, end = (cell * count) // self.cells, ((cell + 1) * count + self.cells - 1) // self.cells
        inside = ops.cast(ops.logical_and(row >= first, row < end), "float32")
        return ops.cast(inside / ops.cast(end - first, "float32"), dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.cells, self.cells, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "cells": self.cells}


@keras.saving.register_keras_serializable("keras_robust")
class ResizeLike(keras.layers.Layer):
    """A map at the height and width of another, by bilinear interpolation between the centres of pixels.

    Called on a pair `(x, like)`; beyond the centres of the outermost pixels their value goes on (PyTorch's
    `interpolate(..., align_corners=False)`).

    Shapes: `(batch, h, w, channels)` and `(batch, height, width, any)` to `(batch, height, width, channels)`.

    Example:

    >>> tuple(ResizeLike()((keras.ops.ones((2, 3, 4, 8)), keras.ops.ones((2, 6, 9, 3)))).shape)
    (2, 6, 9, 8)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # What gives the size keeps its dtype: images of float32 are no business of a 16-bit policy.
        self.autocast = False

    def call(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        x, like = pair
        # Not ops.image.resize, which takes no size that is only known when the graph runs.
        _, height, width, _ = ops.shape(like)
        _, rows, columns, _ = ops.shape(x)
        x = ops.cast(x, self.compute_dtype)
        x = ops.einsum("ih,bhwc->biwc", self._weights(rows, height), x)
        return ops.einsum("jw,biwc->bijc", self._weights(columns, width), x)

    def _weights(self, count: Any, wanted: Any) -> Tensor:
        """Weight of each of `count` rows in each of those wanted, (wanted, count)."""
        last = ops.cast(count, "float32") - 1.0
        scale = ops.cast(count, "float32") / ops.cast(wanted, "float32")
        centres = (ops.cast(ops.arange(wanted, dtype="int32"), "float32") + 0.5) * scale - 0.5
        centres = ops.minimum(ops.maximum(centres, 0.0), last)[:, None]
        rows = ops.cast(ops.arange(count, dtype="int32"), "float32")[None]
        return ops.cast(ops.maximum(1.0 - ops.abs(centres - rows), 0.0), self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        x, like = input_shape
        return (*like[:3], x[-1])
