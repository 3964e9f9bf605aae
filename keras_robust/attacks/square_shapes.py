"""Shapes of the Square Attack: windows in an image, and the change inside of them under L2 and L1.

A window is the product of two intervals, so all of this is worked out along one axis at a time: arrays (..., height)
and (..., width) for many queries at once instead of (..., height, width) for each.
"""

from typing import Any

import numpy as np
from keras import ops

from keras_robust.types import Tensor

LARGEST_IMAGE = 8192  # pixels a side, for which there are sums of heights


def start(draw: Tensor, side: Tensor, length: Any) -> Tensor:
    """First pixel of an interval of `side` pixels among `length`, at a place drawn uniformly; floats."""
    return ops.floor(draw * (ops.cast(length, "float32") - side + 1.0))


def positions(first: Tensor, length: Any) -> Tensor:
    """Positions 0, 1, ... relative to `first` (...), floats (..., length)."""
    return ops.cast(ops.arange(length, dtype="int32"), "float32") - first[..., None]


def inside(place: Tensor, side: Tensor) -> Tensor:
    """1 where a position lies in an interval of length `side` (...), 0 elsewhere."""
    return ops.cast(ops.logical_and(place >= 0.0, place < side[..., None]), "float32")


class Eta:
    """The update eta of the Square Attack: a bump beside a dip in a square window, together of size one.

    A bump is a stack of concentric rectangles, the one of ring r of height 1 / r^power: `power` 2 for the L2 norm
    (Andriushchenko et al. 2020, section 4.3), 4 for L1 (Croce & Hein 2021, supplement). Its height falls with the
    larger of the distances from its middle along the two axes, so it is the smaller of a height along each.

    Args:
        order: of the norm in which sizes are measured, 1 or 2.
        power: see above.
    """

    def __init__(self, order: int, power: int) -> None:
        self.order = order
        ranks = np.arange(1, LARGEST_IMAGE // 2, dtype="float64")
        self._sums = np.concatenate([[0.0], np.cumsum(1.0 / ranks**power)]).astype("float32")

    def along(self, place: Tensor, side: Tensor, halved: Tensor, rings: Tensor) -> tuple[Tensor, Tensor]:
        """Heights and weights along one axis: the change is min(heights) * product of the weights.

        Args:
            place: positions in the window, floats (..., length).
            side: of the window, floats (...).
            halved: booleans (...), whether bump and dip follow one another along this axis, or both extend over it.
            rings: 0, 1, 2, ..., floats (n,), up to half the largest side.
        """
        upper = ops.floor(side / 2.0)
        lower = side - upper
        in_upper = place < upper[..., None]
        from_half = ops.where(in_upper, place, place - upper[..., None])
        middle_of_half = ops.floor(ops.where(in_upper, upper[..., None], lower[..., None]) / 2.0)
        halved = halved[..., None]
        distance = ops.where(halved, ops.abs(from_half - middle_of_half), ops.abs(place - upper[..., None]))
        heights = self._height(distance, side[..., None]) * inside(place, side)
        weights = ops.where(
            in_upper, 1.0 / self._size(upper, side, rings)[..., None], -1.0 / self._size(lower, side, rings)[..., None]
        )
        return heights, ops.where(halved, weights, 1.0)

    def _height(self, distance: Tensor, side: Tensor) -> Tensor:
        top = ops.floor(side / 2.0) + 1.0
        sums = ops.convert_to_tensor(self._sums)
        distance, top = (ops.cast(a, "int32") for a in (ops.minimum(distance, top), top))
        return ops.take(sums, top) - ops.take(sums, distance)

    def _size(self, extent: Tensor, side: Tensor, rings: Tensor) -> Tensor:
        """Twice the order-th power of the size of a bump on extent x side pixels, to the power 1 / order."""

        def reach(length: Tensor) -> Tensor:
            """Pixels no farther than each ring from the middle of an interval."""
            length = length[..., None]
            middle = ops.floor(length / 2.0)
            pixels = ops.minimum(middle, rings) + ops.minimum(length - 1.0 - middle, rings) + 1.0
            return ops.where(length > 0.0, pixels, 0.0)

        within = reach(extent) * reach(side)
        before = ops.concatenate([0.0 * within[..., :1], within[..., :-1]], axis=-1)
        total = ops.sum((within - before) * self._height(rings, side[..., None]) ** self.order, axis=-1)
        return ops.maximum(2.0 * total, 1e-12) ** (1.0 / self.order)


def outer_product(rows: Tensor, columns: Tensor) -> Tensor:
    """The product of values along two axes, (..., height) and (..., width): (..., height, width)."""
    return rows[..., :, None] * columns[..., None, :]
