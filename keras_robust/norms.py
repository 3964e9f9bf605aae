"""The geometry of each norm: its ball intersected with the box of valid pixels, and hyperplanes inside the box."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust import random
from keras_robust.types import Array, Tensor

# A computed norm of a point on the sphere is off by a few roundings; without this slack such points would not count
# as inside, and projecting twice would move them twice.
RELATIVE_SLACK = 1e-6
MEASURED_SLACK = 2e-6  # the same of a norm that is measured in float64
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


def radius(eps: Any, x: Tensor) -> Any:
    """A radius to compute with `x` of shape (batch, ...): a number as it is, one per example, (batch,), reshaped."""
    return per_example(eps, x) if len(getattr(eps, "shape", ())) else eps


def _pixels(values: Tensor) -> tuple[Any, ...]:
    """The axes of one example."""
    return tuple(range(1, len(values.shape)))


def _flat_sum(values: Tensor) -> Tensor:
    return ops.sum(values, axis=_pixels(values))


def _clip_to_box(x: Tensor) -> Tensor:
    return ops.clip(x, 0.0, 1.0)


class Norm:
    """Geometry of one norm. Images are (batch, height, width, channels) in [0, 1]; `eps` is >= 0, a scalar or (batch,).

    A new norm is a subclass with these methods and one row in `NORMS`.

    Attributes:
        order: of the norm, as `numpy.linalg.norm` takes it.
    """

    order: float

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

    def retract(self, x_adv: Tensor, x: Tensor, eps: Any) -> Any:
        """A cheap map into ball and box, as APGD and FMN use in their loops: onto the ball, then into the box."""
        raise NotImplementedError

    def measure(self, x_adv: Array, x: Array) -> Array:
        """Norm of each perturbation from numpy images `x` to `x_adv`, computed in float64, (n,)."""
        return np.linalg.norm((x_adv.astype(np.float64) - x).reshape(len(x), -1), self.order, axis=1)

    def slack(self, eps: float) -> float:
        """By how much `measure` of a point on the sphere may exceed `eps`, as its pixels are float32."""
        return MEASURED_SLACK * eps

    def diameter(self, shape: Sequence[int]) -> float:
        """The largest distance between two images of a shape (height, width, channels)."""
        raise NotImplementedError

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

    order = np.inf

    def of(self, delta: Tensor) -> Tensor:
        return ops.max(ops.abs(delta), axis=_pixels(delta))

    def step(self, gradient: Tensor) -> Tensor:
        return ops.sign(gradient)

    def dual(self, gradient: Tensor) -> Tensor:
        return _flat_sum(ops.abs(gradient))

    def random(self, keys: tuple[Tensor, Tensor], x: Tensor, eps: Any) -> Tensor:
        return _clip_to_box(x + radius(eps, x) * (2.0 * random.uniform(keys, x) - 1.0))

    def nearest(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        eps = radius(eps, x)
        return _clip_to_box(ops.clip(x_adv, x - eps, x + eps))

    def retract(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        return self.nearest(x_adv, x, eps)

    def cheapest(self, gain: Tensor, room: Tensor, needed: Tensor) -> Tensor:
        return ops.minimum(per_example(_filling(gain, ops.ones_like(gain), room, needed), gain), room)

    def project(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        # Clipping leaves points inside alone by itself.
        return self.nearest(x_adv, x, eps)

    def contains(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        # The ball's faces are x +- eps rounded to a float, which |x_adv - x| <= eps would cut off.
        return ops.all(ops.equal(self.nearest(x_adv, x, eps), x_adv), axis=_pixels(x))

    def slack(self, eps: float) -> float:
        return PIXEL_ROUNDING  # of x + eps to a float, which is where the ball ends

    def diameter(self, shape: Sequence[int]) -> float:
        return 1.0


class L2(Norm):
    """Euclidean length of the change."""

    order = 2

    def of(self, delta: Tensor) -> Tensor:
        return ops.sqrt(_flat_sum(delta * delta))

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
        return _clip_to_box(x + scaled)

    def onto_sphere(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        """The change scaled to the length `eps`, then into the box."""
        delta = x_adv - x
        return _clip_to_box(x + per_example(eps / ops.maximum(self.of(delta), 1e-12), x) * delta)

    def cheapest(self, gain: Tensor, room: Tensor, needed: Tensor) -> Tensor:
        return ops.minimum(per_example(_filling(gain, gain, room, needed), gain) * gain, room)

    def nearest(self, x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
        # The Karush-Kuhn-Tucker conditions give |z - x| = min(t |x_adv - x|, room) with one t in [0, 1] per example:
        # a sum of squares min(t^2 distance^2, room^2) that is to be eps^2.
        delta = x_adv - x
        sign, square = ops.sign(delta), delta * delta
        room = _room(x, sign)
        reach = ops.minimum(ops.cast(eps, square.dtype), LARGEST_RADIUS)
        needed = reach * reach + 0.0 * square[:, 0, 0, 0]
        factor = _filling(ops.ones_like(square), square, room * room, needed, most=1.0)
        change = ops.minimum(per_example(ops.sqrt(factor), x) * ops.abs(delta), room)
        return _step_within(self, x, change, sign, eps)

    def diameter(self, shape: Sequence[int]) -> float:
        return math.sqrt(math.prod(shape))


class L1(Norm):
    """Sum of the absolute changes of all pixel values."""

    order = 1
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
        delta = x_adv - x
        sign = ops.sign(delta)
        return _step_within(self, x, self._shrunk(ops.abs(delta), _room(x, sign), eps), sign, eps)

    def retract(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        delta = x_adv - x
        distance = ops.abs(delta)
        return _clip_to_box(x + ops.sign(delta) * self._shrunk(distance, distance, eps))

    def _shrunk(self, distance: Tensor, room: Tensor, eps: Any) -> Tensor:
        """The sizes 0 <= c <= room nearest to those of `distance` whose sum is at most `eps`."""

        # The Karush-Kuhn-Tucker conditions give c = clip(distance - t, 0, room) with one t >= 0 per example.
        def change(t: Tensor) -> Tensor:
            return ops.minimum(ops.maximum(distance - per_example(t, distance), 0.0), room)

        t = _threshold(lambda t: _flat_sum(change(t)) - eps, ops.max(distance, axis=_pixels(distance)))
        # With the entries known that stop at the box or at zero, the threshold has a closed form.
        above = distance - per_example(t, distance)
        full = _where(above >= room, distance)
        free = _where(above > 0.0, distance) * (1.0 - full)
        count = _flat_sum(free)
        exact = ops.maximum((_flat_sum(full * room + free * distance) - eps) / ops.maximum(count, 1.0), 0.0)
        return change(ops.where(ops.logical_and(t > 0.0, count > 0.0), exact, t))

    def diameter(self, shape: Sequence[int]) -> float:
        return float(math.prod(shape))


class L0(Norm):
    """Number of the pixel values that change, each by as much as the box allows; a radius is such a number."""

    order = 0

    def of(self, delta: Tensor) -> Tensor:
        return _flat_sum(_where(self._pooled(ops.abs(delta)) > 0.0, delta))

    def measure(self, x_adv: Array, x: Array) -> Array:
        return np.count_nonzero(self._changed(x_adv, x), axis=(1, 2, 3)).astype(np.float64)

    def slack(self, eps: float) -> float:
        return 0.0

    def diameter(self, shape: Sequence[int]) -> float:
        return float(math.prod(shape))

    def step(self, gradient: Tensor) -> Tensor:
        return ops.sign(gradient) * _where(self._foremost(ops.abs(gradient), 1.0), gradient)

    def dual(self, gradient: Tensor) -> Tensor:
        pooled = self._pooled(ops.abs(gradient))
        return ops.max(pooled, axis=_pixels(pooled))

    def random(self, keys: tuple[Tensor, Tensor], x: Tensor, eps: Any) -> Tensor:
        chosen = self._foremost(random.uniform(keys, x), eps)
        return ops.where(chosen, random.uniform(random.fold_in(keys, 1), x), x)

    def nearest(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        # What a value spares when it may change: its distance squared, less what the box leaves of it.
        z = _clip_to_box(x_adv)
        spared = (x_adv - x) ** 2 - (x_adv - z) ** 2
        return ops.where(self._foremost(spared, eps), z, x)

    def retract(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        delta = x_adv - x
        return ops.where(self._foremost(delta * delta, eps), _clip_to_box(x_adv), x)

    def cheapest(self, gain: Tensor, room: Tensor, needed: Tensor) -> Tensor:
        weight = gain * room
        pooled = self._pooled(weight)
        batch = ops.shape(pooled)[0]
        falling = -ops.sort(-ops.reshape(pooled, (batch, -1)), axis=1)
        count = 1.0 + ops.sum(_where(ops.cumsum(falling, axis=1) < needed[:, None], gain), axis=1)
        chosen = _where(self._foremost(weight, count), gain)
        share = ops.minimum(needed / ops.maximum(_flat_sum(chosen * weight), _tiny(gain)), 1.0)
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
        least = _largest(pooled, count)[:, None]
        above, equal = flat > least, ops.equal(flat, least)
        left = count - ops.sum(_where(above, flat), axis=1)
        counted = ops.logical_and(equal, ops.cumsum(_where(equal, flat), axis=1) <= left[:, None])
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
        done = ops.logical_or(tight, ops.abs(value) <= 1e-6 * scale)
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
    scale = -at_top  # nothing moves beyond the top
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


NORMS: dict[str, Norm] = {"Linf": Linf(), "L2": L2(), "L1": L1(), "L0": L0(), "L0-pixels": L0Pixels()}
