"""The geometry of each norm: its ball intersected with the box of valid pixels, and hyperplanes inside the box."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust import random
from keras_robust.types import Tensor

# A computed norm of a point on the sphere is off by a few roundings; without this slack such points would not count
# as inside, and projecting twice would move them twice.
RELATIVE_SLACK = 1e-6
PIXEL_ROUNDING = 2.0**-24  # the spacing of float32 below 1
ROOT_STEPS = 50  # at most; about eight are needed
LARGEST_RADIUS = 1e9  # no image is as long, and its square is a float32


def per_example(values: Tensor, x: Tensor) -> Tensor:
    """Reshape `values` of shape (batch,) so that they broadcast against `x` of shape (batch, ...)."""
    return ops.reshape(values, (-1,) + (1,) * (len(x.shape) - 1))


def choose(condition: Any, yes: Tensor, no: Tensor) -> Tensor:
    """`yes` for the examples where `condition` (batch,), or () for all of them, holds, `no` elsewhere."""
    condition = ops.convert_to_tensor(condition)
    if len(yes.shape) == 1 or len(condition.shape) == 0:
        return ops.where(condition, yes, no)
    # Flat: on TensorFlow a selection that broadcasts over four axes takes six times as long.
    shape = ops.shape(yes)
    flat = (ops.reshape(values, (shape[0], -1)) for values in (yes, no))
    return ops.reshape(ops.where(condition[:, None], *flat), shape)


def _pixels(values: Tensor) -> tuple[Any, ...]:
    """The axes of one example."""
    return tuple(range(1, len(values.shape)))


def _flat_sum(values: Tensor) -> Tensor:
    return ops.sum(values, axis=_pixels(values))


def _clip_to_box(x: Tensor) -> Tensor:
    return ops.clip(x, 0.0, 1.0)


class Norm:
    """Geometry of one norm. Images are (batch, height, width, channels) in [0, 1]; `eps` is a scalar >= 0.

    A new norm is a subclass with these methods and one row in `NORMS`.
    """

    def of(self, delta: Tensor) -> Any:
        """Norm of each example of `delta`, shape (batch,)."""
        raise NotImplementedError

    def step(self, gradient: Tensor) -> Any:
        """Direction of steepest ascent of unit size for each example of `gradient`."""
        raise NotImplementedError

    def dual(self, gradient: Tensor) -> Any:
        """The dual norm of each example: how fast a linear function with this gradient changes per unit of size."""
        raise NotImplementedError

    def random(self, keys: tuple[Tensor, Tensor], x: Tensor, eps: Any) -> Any:
        """A random point of the ball around `x`, inside the box; `keys` as from `random.example_keys`."""
        raise NotImplementedError

    def nearest(self, x_adv: Tensor, x: Tensor, eps: Any) -> Any:
        """Euclidean projection of `x_adv` onto ball and box, for points that may lie outside."""
        raise NotImplementedError

    def retract(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        """A cheap map into ball and box, as APGD uses in its loop; the projection unless overridden."""
        return self.project(x_adv, x, eps)

    def contains(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        """Whether each example lies in ball and box (norm to a relative 1e-6), booleans of shape (batch,)."""
        inside_box = ops.all(ops.logical_and(x_adv >= 0.0, x_adv <= 1.0), axis=_pixels(x))
        return ops.logical_and(inside_box, self.of(x_adv - x) <= eps * (1.0 + RELATIVE_SLACK))

    def to_hyperplane(self, x: Tensor, normal: Tensor, gap: Tensor) -> Tensor:
        """The smallest change of `x`, in this norm, that reaches a hyperplane inside the box.

        `gap` (batch,) is the value at `x` of a linear function with gradient `normal`: the change d solves
        gap + <normal, d> = 0 with x + d in [0, 1]. Where the box does not reach that far, d goes as far as it can.
        (Croce & Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack", section 3.)
        """
        sign = -ops.sign(normal) * per_example(ops.sign(gap), x)
        return sign * self.cheapest(ops.abs(normal), _room(x, sign), ops.abs(gap))

    def cheapest(self, gain: Any, room: Any, needed: Any) -> Any:
        """Sizes 0 <= c <= room of least norm with sum(gain * c) = needed per example; `room` if that is too little."""
        raise NotImplementedError

    def project(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        """Euclidean projection onto ball and box; points inside come back unchanged to the last bit."""
        return choose(self.contains(x_adv, x, eps), x_adv, self.nearest(x_adv, x, eps))


class Linf(Norm):
    """Largest absolute change of a pixel value."""

    def of(self, delta: Tensor) -> Tensor:
        return ops.max(ops.abs(delta), axis=_pixels(delta))

    def step(self, gradient: Tensor) -> Tensor:
        return ops.sign(gradient)

    def dual(self, gradient: Tensor) -> Tensor:
        return _flat_sum(ops.abs(gradient))

    def random(self, keys: tuple[Tensor, Tensor], x: Tensor, eps: Any) -> Tensor:
        return _clip_to_box(x + eps * (2.0 * random.uniform(keys, x) - 1.0))

    def nearest(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        return _clip_to_box(ops.clip(x_adv, x - eps, x + eps))

    def cheapest(self, gain: Tensor, room: Tensor, needed: Tensor) -> Tensor:
        return ops.minimum(per_example(_filling(gain, ops.ones_like(gain), room, needed), gain), room)

    def project(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        # Clipping leaves points inside alone by itself.
        return self.nearest(x_adv, x, eps)

    def contains(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        # The ball's faces are x +- eps rounded to a float, which |x_adv - x| <= eps would cut off.
        return ops.all(ops.equal(self.nearest(x_adv, x, eps), x_adv), axis=_pixels(x))


class L2(Norm):
    """Euclidean length of the change."""

    def of(self, delta: Tensor) -> Tensor:
        return ops.sqrt(_flat_sum(delta * delta))

    def step(self, gradient: Tensor) -> Tensor:
        return gradient / per_example(self.of(gradient) + 1e-12, gradient)

    def dual(self, gradient: Tensor) -> Tensor:
        return self.of(gradient)

    def random(self, keys: tuple[Tensor, Tensor], x: Tensor, eps: Any) -> Tensor:
        return self.retract(x + eps * self.step(random.normal(keys, x)), x, eps)

    def retract(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        delta = x_adv - x
        length = self.of(delta)
        scaled = delta / per_example(length + 1e-12, x) * per_example(ops.minimum(length, eps), x)
        return _clip_to_box(x + scaled)

    def cheapest(self, gain: Tensor, room: Tensor, needed: Tensor) -> Tensor:
        return ops.minimum(per_example(_filling(gain, gain, room, needed), gain) * gain, room)

    def nearest(self, x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
        # The Karush-Kuhn-Tucker conditions give |z - x| = min(t |x_adv - x|, room) with one t in [0, 1] per example:
        # a sum of squares min(t^2 distance^2, room^2) that is to be eps^2.
        delta = x_adv - x
        sign, square = ops.sign(delta), delta * delta
        room = _room(x, sign)
        radius = ops.minimum(ops.cast(eps, square.dtype), LARGEST_RADIUS)
        needed = radius * radius + 0.0 * square[:, 0, 0, 0]
        factor = _filling(ops.ones_like(square), square, room * room, needed, most=1.0)
        change = ops.minimum(per_example(ops.sqrt(factor), x) * ops.abs(delta), room)
        return _step_within(self, x, change, sign, eps)


class L1(Norm):
    """Sum of the absolute changes of all pixel values."""

    share = 0.05  # of the entries that a step of steepest ascent moves

    def of(self, delta: Tensor) -> Tensor:
        return _flat_sum(ops.abs(delta))

    def step(self, gradient: Tensor) -> Tensor:
        return self.sparse_step(gradient, ops.full_like(gradient[:, 0, 0, 0], self.share))

    def dual(self, gradient: Tensor) -> Tensor:
        return ops.max(ops.abs(gradient), axis=_pixels(gradient))

    def sparse_step(self, gradient: Tensor, share: Tensor) -> Tensor:
        """Equal steps along the signs of the largest entries of each example's gradient, of size one in all.

        `share` of shape (batch,): the part of the entries that moves (Croce & Hein 2021, section 4; a step along the
        single largest entry, which would be the steepest, makes no progress inside the box).
        """
        magnitude = ops.abs(gradient)
        n = math.prod(ops.shape(gradient)[1:])
        smaller = ops.floor((1.0 - share) * ops.cast(n, share.dtype))
        smaller = ops.minimum(smaller, ops.cast(n - 1, share.dtype))
        threshold = _largest(magnitude, ops.cast(n, share.dtype) - smaller)
        signs = ops.sign(ops.where(magnitude >= per_example(threshold, gradient), gradient, 0.0))
        return signs / per_example(_flat_sum(ops.abs(signs)) + 1e-10, gradient)

    def random(self, keys: tuple[Tensor, Tensor], x: Tensor, eps: Any) -> Tensor:
        return self.project(x + random.normal(keys, x), x, eps)

    def cheapest(self, gain: Tensor, room: Tensor, needed: Tensor) -> Tensor:
        # A fractional knapsack: the entries of largest gain in full, those at the threshold in part. The mean of the
        # entries between two bounds of the threshold is its next bound, until all of them are equal.
        weight = gain * room

        def held(bound: Tensor) -> Tensor:
            return _flat_sum(_where(gain > per_example(bound, gain), gain) * weight)

        def undecided(low: Tensor, high: Tensor) -> Tensor:
            between = ops.logical_and(gain > per_example(low, gain), gain <= per_example(high, gain))
            return _where(between, gain)

        def go_on(low: Tensor, high: Tensor, spread: Tensor) -> Tensor:
            return ops.any(spread)

        def narrow(low: Tensor, high: Tensor, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            between = undecided(low, high)
            count = ops.maximum(_flat_sum(between), 1.0)
            # Rounding must not carry the mean of a few neighbouring floats out of the bracket.
            middle = ops.clip(_flat_sum(between * gain) / count, low, high)
            enough = held(middle) >= needed
            low_now, high_now = ops.where(enough, middle, low), ops.where(enough, high, middle)
            moved = ops.logical_or(low_now > low, high_now < high)
            return ops.where(spread, low_now, low), ops.where(spread, high_now, high), ops.logical_and(spread, moved)

        top = ops.max(gain, axis=_pixels(gain))
        start = (0.0 * top - 1.0, top, top >= 0.0)
        low, high, _ = ops.while_loop(go_on, narrow, start, maximum_iterations=ROOT_STEPS)
        full, partly = _where(gain > per_example(high, gain), gain), undecided(low, high)
        share = (needed - _flat_sum(full * weight)) / ops.maximum(_flat_sum(partly * weight), _tiny(gain))
        return room * (full + partly * per_example(ops.clip(share, 0.0, 1.0), gain))

    def nearest(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        # The Karush-Kuhn-Tucker conditions give |z - x| = clip(|x_adv - x| - t, 0, room) with one t >= 0 per example.
        delta = x_adv - x
        distance, sign = ops.abs(delta), ops.sign(delta)
        room = _room(x, sign)

        def change(t: Tensor) -> Tensor:
            return ops.minimum(ops.maximum(distance - per_example(t, x), 0.0), room)

        t = _threshold(lambda t: _flat_sum(change(t)) - eps, ops.max(distance, axis=_pixels(x)))
        # With the entries known that stop at the box or at zero, the threshold has a closed form.
        above = distance - per_example(t, x)
        full = _where(above >= room, x)
        free = _where(above > 0.0, x) * (1.0 - full)
        count = _flat_sum(free)
        exact = ops.maximum((_flat_sum(full * room + free * distance) - eps) / ops.maximum(count, 1.0), 0.0)
        t = ops.where(ops.logical_and(t > 0.0, count > 0.0), exact, t)
        return _step_within(self, x, change(t), sign, eps)


def _largest(values: Tensor, count: Tensor) -> Tensor:
    """Of each example's `values` (batch, ..., channels), non-negative floats, the one that `count` (batch,) reach.

    Bit by bit, as such floats are ordered like the integers of the same bits: exact, and four times as fast as sorting.
    """
    integer, digits = ("int64", 62) if _is_double(values) else ("int32", 30)
    batch = ops.shape(values)[0]
    # Keras views as another type what has a last axis of known length.
    bits = ops.reshape(ops.view(values, integer), (batch, -1))
    one = ops.ones_like(bits[:, :1])

    def set_bit(k: Any, threshold: Tensor) -> Tensor:
        ahead = threshold + ops.left_shift(one, ops.cast(digits - k, integer))
        enough = ops.sum(ops.cast(bits >= ahead, "float32"), axis=1, keepdims=True) >= count[:, None]
        return ops.where(enough, ahead, threshold)

    threshold = ops.fori_loop(0, digits + 1, set_bit, 0 * one)
    return ops.reshape(ops.view(ops.reshape(threshold, (batch, 1)), values.dtype), (batch,))


def _is_double(x: Tensor) -> bool:
    return keras.backend.standardize_dtype(x.dtype) == "float64"


def _tiny(x: Tensor) -> float:
    return float(np.finfo(np.float64 if _is_double(x) else np.float32).tiny)


def _where(condition: Tensor, like: Tensor) -> Tensor:
    """1 where it holds, 0 elsewhere, in the dtype of `like`: multiplying by it is faster than selecting."""
    return ops.cast(condition, like.dtype)


def _room(x: Tensor, sign: Tensor) -> Tensor:
    """How far the box lets each entry move in the direction `sign`."""
    along = sign * x
    return ops.maximum(sign - along, -along)


def _filling(gain: Tensor, speed: Tensor, room: Tensor, needed: Tensor, most: float = float("inf")) -> Tensor:
    """The one t >= 0 per example, (batch,), at which sum(gain * min(t * speed, room)) = needed, and at most `most`.

    The sum is concave in t and linear between the points where an entry's room is used up: Newton's method from t = 0
    never overshoots and ends after finitely many steps, seldom more than ten. Where all the room is not enough, the t
    that uses it up. An example that is done stands still, whatever the others of its batch still need.
    """

    def look(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        moved = per_example(t, gain) * speed
        slope = _flat_sum(_where(moved < room, gain) * gain * speed)
        rest = needed - _flat_sum(gain * ops.minimum(moved, room))
        return rest, slope, ops.logical_and(ops.logical_and(rest > 1e-6 * needed, slope > 0.0), t < most)

    def go_on(t: Tensor, rest: Tensor, slope: Tensor, going: Tensor) -> Tensor:
        return ops.any(going)

    def newton(t: Tensor, rest: Tensor, slope: Tensor, going: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ahead = t + ops.maximum(rest, 0.0) / ops.maximum(slope, _tiny(gain))
        t = ops.where(going, ops.minimum(ahead, most), t)
        rest, slope, still = look(t)
        return t, rest, slope, ops.logical_and(going, still)

    zero = 0.0 * needed
    t, *_ = ops.while_loop(go_on, newton, (zero, *look(zero)), maximum_iterations=ROOT_STEPS)
    return t


def _threshold(excess: Callable, top: Tensor) -> Tensor:
    """The t in [0, top] per example, (batch,), where the falling function `excess` crosses zero; 0 if it is negative.

    By false position with the Illinois rule: the value at an end that stays twice in a row is halved. An example that
    is done stands still, whatever the others of its batch still need.
    """

    def go_on(
        t: Tensor, low: Tensor, high: Tensor, at_low: Tensor, at_high: Tensor, side: Tensor, going: Tensor
    ) -> Tensor:
        return ops.any(going)

    def narrow(
        t: Tensor, low: Tensor, high: Tensor, at_low: Tensor, at_high: Tensor, side: Tensor, going: Tensor
    ) -> tuple[Tensor, ...]:
        ahead = low + (high - low) * at_low / ops.maximum(at_low - at_high, _tiny(low))
        ahead = ops.where(ops.logical_and(ahead > low, ahead < high), ahead, 0.5 * (low + high))
        value = excess(ahead)
        raised = ops.logical_and(going, value > 0.0)
        lowered = ops.logical_and(going, value <= 0.0)
        tight = ops.logical_or(ahead <= low, ahead >= high)
        done = ops.logical_or(tight, ops.abs(value) <= 1e-6 * radius)
        halved_low = ops.where(ops.logical_and(lowered, side < 0.0), 0.5 * at_low, at_low)
        halved_high = ops.where(ops.logical_and(raised, side > 0.0), 0.5 * at_high, at_high)
        return (
            ops.where(going, ahead, t),
            ops.where(raised, ahead, low),
            ops.where(lowered, ahead, high),
            ops.where(raised, value, halved_low),
            ops.where(lowered, value, halved_high),
            ops.where(raised, 1.0, ops.where(lowered, -1.0, side)),
            ops.logical_and(going, ops.logical_not(done)),
        )

    zero = 0.0 * top
    at_zero, at_top = excess(zero), excess(top)
    radius = -at_top  # nothing moves beyond the top
    start = (zero, zero, top, at_zero, at_top, zero, at_zero > 0.0)
    t, *_ = ops.while_loop(go_on, narrow, start, maximum_iterations=ROOT_STEPS)
    return t


def _step_within(norm: "L1 | L2", x: Tensor, change: Tensor, sign: Tensor, eps: Any) -> Tensor:
    """`x` moved by at most `change` in each entry and at most `eps` in all, exactly `x` for eps = 0."""
    change = change * per_example(ops.minimum(eps / ops.maximum(norm.of(change), _tiny(x)), 1.0), x)
    change = change * _where(change > PIXEL_ROUNDING, x)
    z = _clip_to_box(x + sign * change)
    # The sum may have been rounded away from x; over many pixels that would add up.
    return z - sign * PIXEL_ROUNDING * _where(ops.abs(z - x) > change, x)


NORMS = {"Linf": Linf(), "L2": L2(), "L1": L1()}
