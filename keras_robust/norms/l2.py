"""The Euclidean length of a change."""

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_robust import random
from keras_robust.norms.base import (
    LARGEST_RADIUS,
    Norm,
    clip_to_box,
    flat_sum,
    per_example,
    radius,
    room_of,
    step_within,
)
from keras_robust.norms.roots import filling
from keras_robust.types import Tensor


class L2(Norm):
    """Euclidean length of the change."""

    order = 2

    def of(self, delta: Tensor) -> Tensor:
        return ops.sqrt(flat_sum(delta * delta))

    def step(self, gradient: Tensor) -> Tensor:
        return gradient / per_example(self.of(gradient) + 1e-12, gradient)

    def dual(self, gradient: Tensor) -> Tensor:
        return self.of(gradient)

    def random(self, keys: tuple[Tensor, Tensor], x: Tensor, eps: Any) -> Tensor:
        return self.retract(x + radius(eps, x) * self.step(random.normal(keys, x)), x, eps)

    def retract(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        delta = x_adv - x
        length = self.of(delta)
        scaled = delta / per_example(length + 1e-12, x) * per_example(ops.minimum(length, eps), x)
        return clip_to_box(x + scaled)

    def onto_sphere(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        """The change scaled to the length `eps`, then into the box."""
        delta = x_adv - x
        return clip_to_box(x + per_example(eps / ops.maximum(self.of(delta), 1e-12), x) * delta)

    def cheapest(self, gain: Tensor, room: Tensor, needed: Tensor) -> Tensor:
        return ops.minimum(per_example(filling(gain, gain, room, needed), gain) * gain, room)

    def nearest(self, x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
        # The Karush-Kuhn-Tucker conditions give |z - x| = min(t |x_adv - x|, room) with one t in [0, 1] per example:
        # a sum of squares min(t^2 distance^2, room^2) that is to be eps^2.
        delta = x_adv - x
        sign, square = ops.sign(delta), delta * delta
        room = room_of(x, sign)
        reach = ops.minimum(ops.cast(eps, square.dtype), LARGEST_RADIUS)
        needed = reach * reach + 0.0 * square[:, 0, 0, 0]
        factor = filling(ops.ones_like(square), square, room * room, needed, most=1.0)
        change = ops.minimum(per_example(ops.sqrt(factor), x) * ops.abs(delta), room)
        return step_within(self, x, change, sign, eps)

    def diameter(self, shape: Sequence[int]) -> float:
        return math.sqrt(math.prod(shape))
