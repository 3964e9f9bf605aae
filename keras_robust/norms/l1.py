"""The sum of the changes."""

import math
from collections.abc import Sequence
from typing import Any

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
    room_of,
    step_within,
    tiny,
)
from keras_robust.norms.roots import ROOT_STEPS, threshold_of
from keras_robust.types import Tensor


class L1(Norm):
    """Sum of the absolute changes of all pixel values."""

    order = 1
    share = 0.05  # of the entries that a step of steepest ascent moves

    def of(self, delta: Tensor) -> Tensor:
        return flat_sum(ops.abs(delta))

    def step(self, gradient: Tensor) -> Tensor:
        return self.sparse_step(gradient, ops.full_like(gradient[:, 0, 0, 0], self.share))

    def dual(self, gradient: Tensor) -> Tensor:
        return ops.max(ops.abs(gradient), axis=pixel_axes(gradient))

    def sparse_step(self, gradient: Tensor, share: Tensor) -> Tensor:
        """Equal steps along the signs of the largest entries of each example's gradient, of size one in all.

        `share` of shape (batch,): the part of the entries that moves (Croce & Hein 2021, section 4; a step along the
        single largest entry, which would be the steepest, makes no progress inside the box).
        """
        magnitude = ops.abs(gradient)
        n = math.prod(ops.shape(gradient)[1:])
        smaller = ops.floor((1.0 - share) * ops.cast(n, share.dtype))
        smaller = ops.minimum(smaller, ops.cast(n - 1, share.dtype))
        threshold = nth_largest(magnitude, ops.cast(n, share.dtype) - smaller)
        signs = ops.sign(ops.where(magnitude >= per_example(threshold, gradient), gradient, 0.0))
        return signs / per_example(flat_sum(ops.abs(signs)) + 1e-10, gradient)

    def random(self, keys: tuple[Tensor, Tensor], x: Tensor, eps: Any) -> Tensor:
        return self.project(x + random.normal(keys, x), x, eps)

    def cheapest(self, gain: Tensor, room: Tensor, needed: Tensor) -> Tensor:
        # A fractional knapsack: the entries of largest gain in full, those at the threshold in part. The mean of the
        # entries between two bounds of the threshold is its next bound, until all of them are equal.
        weight = gain * room

        def held(bound: Tensor) -> Tensor:
            return flat_sum(ones_where(gain > per_example(bound, gain), gain) * weight)

        def undecided(low: Tensor, high: Tensor) -> Tensor:
            between = ops.logical_and(gain > per_example(low, gain), gain <= per_example(high, gain))
            return ones_where(between, gain)

        def go_on(low: Tensor, high: Tensor, spread: Tensor) -> Tensor:
            return ops.any(spread)

        def narrow(low: Tensor, high: Tensor, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            between = undecided(low, high)
            count = ops.maximum(flat_sum(between), 1.0)
            # Rounding must not carry the mean of a few neighbouring floats out of the bracket.
            middle = ops.clip(flat_sum(between * gain) / count, low, high)
            enough = held(middle) >= needed
            low_now, high_now = ops.where(enough, middle, low), ops.where(enough, high, middle)
            moved = ops.logical_or(low_now > low, high_now < high)
            return ops.where(spread, low_now, low), ops.where(spread, high_now, high), ops.logical_and(spread, moved)

        top = ops.max(gain, axis=pixel_axes(gain))
        start = (0.0 * top - 1.0, top, top >= 0.0)
        low, high, _ = ops.while_loop(go_on, narrow, start, maximum_iterations=ROOT_STEPS)
        full, partly = ones_where(gain > per_example(high, gain), gain), undecided(low, high)
        share = (needed - flat_sum(full * weight)) / ops.maximum(flat_sum(partly * weight), tiny(gain))
        return room * (full + partly * per_example(ops.clip(share, 0.0, 1.0), gain))

    def nearest(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        delta = x_adv - x
        sign = ops.sign(delta)
        return step_within(self, x, self._shrunk(ops.abs(delta), room_of(x, sign), eps), sign, eps)

    def retract(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        delta = x_adv - x
        distance = ops.abs(delta)
        return clip_to_box(x + ops.sign(delta) * self._shrunk(distance, distance, eps))

    def _shrunk(self, distance: Tensor, room: Tensor, eps: Any) -> Tensor:
        """The sizes 0 <= c <= room nearest to those of `distance` whose sum is at most `eps`."""

        # The Karush-Kuhn-Tucker conditions give c = clip(distance - t, 0, room) with one t >= 0 per example.
        def change(t: Tensor) -> Tensor:
            return ops.minimum(ops.maximum(distance - per_example(t, distance), 0.0), room)

        t = threshold_of(lambda t: flat_sum(change(t)) - eps, ops.max(distance, axis=pixel_axes(distance)))
        # With the entries known that stop at the box or at zero, the threshold has a closed form.
        above = distance - per_example(t, distance)
        full = ones_where(above >= room, distance)
        free = ones_where(above > 0.0, distance) * (1.0 - full)
        count = flat_sum(free)
        exact = ops.maximum((flat_sum(full * room + free * distance) - eps) / ops.maximum(count, 1.0), 0.0)
        return change(ops.where(ops.logical_and(t > 0.0, count > 0.0), exact, t))

    def diameter(self, shape: Sequence[int]) -> float:
        return float(math.prod(shape))
