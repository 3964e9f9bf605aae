"""The number of changes, of values or of pixels."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_robust import random
from keras_robust.norms.base import (
    Norm,
    clip_to_box,
    flat_sum,
    nth_largest,
    ones_where,
    per_example,
    pixel_axes,
    tiny,
)
from keras_robust.types import Array, Tensor


class L0(Norm):
    """Number of the pixel values that change, each by as much as the box allows; a radius is such a number."""

    order = 0

    def of(self, delta: Tensor) -> Tensor:
        return flat_sum(ones_where(self._pooled(ops.abs(delta)) > 0.0, delta))

    def measure(self, x_adv: Array, x: Array) -> Array:
        return np.count_nonzero(self._changed(x_adv, x), axis=(1, 2, 3)).astype(np.float64)

    def slack(self, eps: float) -> float:
        return 0.0

    def diameter(self, shape: Sequence[int]) -> float:
        return float(math.prod(shape))

    def step(self, gradient: Tensor) -> Tensor:
        return ops.sign(gradient) * ones_where(self._foremost(ops.abs(gradient), 1.0), gradient)

    def dual(self, gradient: Tensor) -> Tensor:
        pooled = self._pooled(ops.abs(gradient))
        return ops.max(pooled, axis=pixel_axes(pooled))

    def random(self, keys: tuple[Tensor, Tensor], x: Tensor, eps: Any) -> Tensor:
        chosen = self._foremost(random.uniform(keys, x), eps)
        return ops.where(chosen, random.uniform(random.fold_in(keys, 1), x), x)

    def nearest(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        # What a value spares when it may change: its distance squared, less what the box leaves of it.
        z = clip_to_box(x_adv)
        spared = (x_adv - x) ** 2 - (x_adv - z) ** 2
        return ops.where(self._foremost(spared, eps), z, x)

    def retract(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        delta = x_adv - x
        return ops.where(self._foremost(delta * delta, eps), clip_to_box(x_adv), x)

    def cheapest(self, gain: Tensor, room: Tensor, needed: Tensor) -> Tensor:
        weight = gain * room
        pooled = self._pooled(weight)
        batch = ops.shape(pooled)[0]
        falling = -ops.sort(-ops.reshape(pooled, (batch, -1)), axis=1)
        count = 1.0 + ops.sum(ones_where(ops.cumsum(falling, axis=1) < needed[:, None], gain), axis=1)
        chosen = ones_where(self._foremost(weight, count), gain)
        share = ops.minimum(needed / ops.maximum(flat_sum(chosen * weight), tiny(gain)), 1.0)
        return chosen * room * per_example(share, gain)

    def _changed(self, x_adv: Array, x: Array) -> Array:
        """Where there is a change, booleans (n, height, width, ...)."""
        return x_adv != x

    def _pooled(self, values: Tensor) -> Tensor:
        """Sums of `values` over what counts as one change."""
        return values

    def _foremost(self, values: Tensor, count: Any) -> Tensor:
        """Where the changes of largest pooled `values` are, at most `count` (a number or (batch,)) and all above 0.

        Of equal ones the first in the image. Booleans in the shape of `values`, which are >= 0.
        """
        pooled = self._pooled(values)
        batch = ops.shape(pooled)[0]
        flat = ops.reshape(pooled, (batch, -1))
        count = ops.floor(ops.cast(count, flat.dtype) + ops.zeros_like(flat[:, 0]))
        least = nth_largest(pooled, count)[:, None]
        above, equal = flat > least, ops.equal(flat, least)
        left = count - ops.sum(ones_where(above, flat), axis=1)
        counted = ops.logical_and(equal, ops.cumsum(ones_where(equal, flat), axis=1) <= left[:, None])
        chosen = ops.logical_and(ops.logical_or(above, counted), flat > 0.0)
        return ops.broadcast_to(ops.reshape(chosen, ops.shape(pooled)), ops.shape(values))


class L0Pixels(L0):
    """Number of the pixels that change, all their channels at once."""

    def diameter(self, shape: Sequence[int]) -> float:
        return float(math.prod(shape[:-1]))

    def random(self, keys: tuple[Tensor, Tensor], x: Tensor, eps: Any) -> Tensor:
        one_draw = ops.repeat(random.uniform(keys, x[..., :1]), x.shape[-1], axis=-1)
        return ops.where(self._foremost(one_draw, eps), random.uniform(random.fold_in(keys, 1), x), x)

    def _changed(self, x_adv: Array, x: Array) -> Array:
        return (x_adv != x).any(-1, keepdims=True)

    def _pooled(self, values: Tensor) -> Tensor:
        return ops.sum(values, axis=-1, keepdims=True)
