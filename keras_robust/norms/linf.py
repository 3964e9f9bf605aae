"""The largest change of a pixel value."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_robust import random
from keras_robust.norms.base import PIXEL_ROUNDING, Norm, clip_to_box, flat_sum, per_example, pixel_axes, radius
from keras_robust.norms.roots import filling
from keras_robust.types import Tensor


class Linf(Norm):
    """Largest absolute change of a pixel value."""

    order = np.inf

    def of(self, delta: Tensor) -> Tensor:
        return ops.max(ops.abs(delta), axis=pixel_axes(delta))

    def step(self, gradient: Tensor) -> Tensor:
        return ops.sign(gradient)

    def dual(self, gradient: Tensor) -> Tensor:
        return flat_sum(ops.abs(gradient))

    def random(self, keys: tuple[Tensor, Tensor], x: Tensor, eps: Any) -> Tensor:
        return clip_to_box(x + radius(eps, x) * (2.0 * random.uniform(keys, x) - 1.0))

    def nearest(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        eps = radius(eps, x)
        return clip_to_box(ops.clip(x_adv, x - eps, x + eps))

    def retract(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        return self.nearest(x_adv, x, eps)

    def cheapest(self, gain: Tensor, room: Tensor, needed: Tensor) -> Tensor:
        return ops.minimum(per_example(filling(gain, ops.ones_like(gain), room, needed), gain), room)

    def project(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        # Clipping leaves points inside alone by itself.
        return self.nearest(x_adv, x, eps)

    def contains(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        # The ball's faces are x +- eps rounded to a float, which |x_adv - x| <= eps would cut off.
        return ops.all(ops.equal(self.nearest(x_adv, x, eps), x_adv), axis=pixel_axes(x))

    def slack(self, eps: float) -> float:
        return PIXEL_ROUNDING  # of x + eps to a float, which is where the ball ends

    def diameter(self, shape: Sequence[int]) -> float:
        return 1.0
