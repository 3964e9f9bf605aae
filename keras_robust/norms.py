"""The geometry of each norm: its ball intersected with the box of valid pixels, and hyperplanes inside the box."""

import numpy as np
from keras import ops

from keras_robust import random

# A computed norm of a point on the sphere is off by a few roundings; without this slack such points would not count
# as inside, and projecting twice would move them twice.
RELATIVE_SLACK = 1e-6
PIXEL_ROUNDING = 2.0**-24  # the spacing of float32 below 1
BISECTIONS = 40
NEWTON_STEPS = 50


def per_example(values, x):
    """Reshape `values` of shape (batch,) so that they broadcast against `x` of shape (batch, ...)."""
    return ops.reshape(values, (-1,) + (1,) * (len(x.shape) - 1))


def _pixels(values):
    """The axes of one example."""
    return tuple(range(1, len(values.shape)))


def _flat_sum(values):
    return ops.sum(values, axis=_pixels(values))


def _clip_to_box(x):
    return ops.clip(x, 0.0, 1.0)


class Norm:
    """Geometry of one norm. Images are (batch, height, width, channels) in [0, 1]; `eps` is a scalar >= 0.

    A new norm is a subclass with these methods and one row in `NORMS`.
    """

    def size(self, delta):
        """Norm of each example of `delta`, shape (batch,)."""
        raise NotImplementedError

    def step(self, gradient):
        """Direction of steepest ascent of unit size for each example of `gradient`."""
        raise NotImplementedError

    def dual(self, gradient):
        """The dual norm of each example: how fast a linear function with this gradient changes per unit of size."""
        raise NotImplementedError

    def random(self, keys, x, eps):
        """A random point of the ball around `x`, inside the box; `keys` as from `random.example_keys`."""
        raise NotImplementedError

    def nearest(self, x_adv, x, eps):
        """Euclidean projection of `x_adv` onto ball and box, for points that may lie outside."""
        raise NotImplementedError

    def retract(self, x_adv, x, eps):
        """A cheap map into ball and box, as APGD uses in its loop; the projection unless overridden."""
        return self.project(x_adv, x, eps)

    def contains(self, x_adv, x, eps):
        """Whether each example lies in ball and box (norm to a relative 1e-6), booleans of shape (batch,)."""
        inside_box = ops.all(ops.logical_and(x_adv >= 0.0, x_adv <= 1.0), axis=_pixels(x))
        return ops.logical_and(inside_box, self.size(x_adv - x) <= eps * (1.0 + RELATIVE_SLACK))

    def to_hyperplane(self, x, normal, gap):
        """The smallest change of `x`, in this norm, that reaches a hyperplane inside the box.

        `gap` (batch,) is the value at `x` of a linear function with gradient `normal`: the change d solves
        gap + <normal, d> = 0 with x + d in [0, 1]. Where the box does not reach that far, d goes as far as it can.
        (Croce & Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack", section 3.)
        """
        sign = -ops.sign(normal) * per_example(ops.sign(gap), x)
        room = ops.where(sign > 0.0, 1.0 - x, x)
        return sign * self.cheapest(ops.abs(normal), room, ops.abs(gap))

    def cheapest(self, gain, room, needed):
        """Sizes 0 <= c <= room of least norm with sum(gain * c) = needed per example; `room` if that is too little."""
        raise NotImplementedError

    def project(self, x_adv, x, eps):
        """Euclidean projection onto ball and box; points inside come back unchanged to the last bit."""
        return ops.where(per_example(self.contains(x_adv, x, eps), x), x_adv, self.nearest(x_adv, x, eps))


class Linf(Norm):
    """Largest absolute change of a pixel value."""

    def size(self, delta):
        return ops.max(ops.abs(delta), axis=_pixels(delta))

    def step(self, gradient):
        return ops.sign(gradient)

    def dual(self, gradient):
        return _flat_sum(ops.abs(gradient))

    def random(self, keys, x, eps):
        return _clip_to_box(x + eps * (2.0 * random.uniform(keys, x) - 1.0))

    def nearest(self, x_adv, x, eps):
        return _clip_to_box(ops.clip(x_adv, x - eps, x + eps))

    def cheapest(self, gain, room, needed):
        return _fill(gain, ops.ones_like(gain), room, needed)

    def project(self, x_adv, x, eps):
        # Clipping leaves points inside alone by itself.
        return self.nearest(x_adv, x, eps)

    def contains(self, x_adv, x, eps):
        # The ball's faces are x +- eps rounded to a float, which |x_adv - x| <= eps would cut off.
        return ops.all(ops.equal(self.nearest(x_adv, x, eps), x_adv), axis=_pixels(x))


class L2(Norm):
    """Euclidean length of the change."""

    def size(self, delta):
        return ops.sqrt(_flat_sum(delta * delta))

    def step(self, gradient):
        return gradient / per_example(self.size(gradient) + 1e-12, gradient)

    def dual(self, gradient):
        return self.size(gradient)

    def random(self, keys, x, eps):
        return self.retract(x + eps * self.step(random.normal(keys, x)), x, eps)

    def retract(self, x_adv, x, eps):
        delta = x_adv - x
        length = self.size(delta)
        scaled = delta / per_example(length + 1e-12, x) * per_example(ops.minimum(length, eps), x)
        return _clip_to_box(x + scaled)

    def cheapest(self, gain, room, needed):
        return _fill(gain, gain, room, needed)

    def nearest(self, x_adv, x, eps):
        # The Karush-Kuhn-Tucker conditions give |z - x| = min(t |x_adv - x|, room) with one t in [0, 1] per example.
        distance, room, sign = _distance_and_room(x_adv, x)

        def change(t):
            return ops.minimum(per_example(t, x) * distance, room)

        def closed_form(t):
            full = per_example(t, x) * distance >= room
            rest = ops.maximum(eps * eps - _flat_sum(ops.where(full, room * room, 0.0)), 0.0)
            slope = _flat_sum(ops.where(full, 0.0, distance * distance))
            return ops.sqrt(rest / ops.maximum(slope, _tiny(x))), slope > 0.0

        one = ops.ones_like(distance[:, 0, 0, 0])
        t = _solve(lambda t: self.size(change(t)) <= eps, closed_form, 0.0 * one, one)
        return _step_within(self, x, change(t), sign, eps)


class L1(Norm):
    """Sum of the absolute changes of all pixel values."""

    share = 0.05  # of the entries that a step of steepest ascent moves

    def size(self, delta):
        return _flat_sum(ops.abs(delta))

    def step(self, gradient):
        return self.sparse_step(gradient, ops.full_like(gradient[:, 0, 0, 0], self.share))

    def dual(self, gradient):
        return ops.max(ops.abs(gradient), axis=_pixels(gradient))

    def sparse_step(self, gradient, share):
        """Equal steps along the signs of the largest entries of each example's gradient, of size one in all.

        `share` of shape (batch,): the part of the entries that moves (Croce & Hein 2021, section 4; a step along the
        single largest entry, which would be the steepest, makes no progress inside the box).
        """
        magnitude = ops.abs(gradient)
        flat = ops.reshape(magnitude, (ops.shape(gradient)[0], -1))
        n = ops.shape(flat)[1]
        position = ops.cast(ops.floor((1.0 - share) * ops.cast(n, share.dtype)), "int32")
        position = ops.clip(position, 0, n - 1)
        threshold = ops.take_along_axis(ops.sort(flat, axis=-1), position[:, None], axis=1)[:, 0]
        signs = ops.sign(ops.where(magnitude >= per_example(threshold, gradient), gradient, 0.0))
        return signs / per_example(_flat_sum(ops.abs(signs)) + 1e-10, gradient)

    def random(self, keys, x, eps):
        return self.project(x + random.normal(keys, x), x, eps)

    def cheapest(self, gain, room, needed):
        # A fractional knapsack: the entries of largest gain in full, those at the threshold in part.
        weight = gain * room

        def halve(_, bracket):
            low, high = bracket
            middle = 0.5 * (low + high)
            enough = _flat_sum(ops.where(gain > per_example(middle, gain), weight, 0.0)) >= needed
            return ops.where(enough, middle, low), ops.where(enough, high, middle)

        top = ops.max(gain, axis=_pixels(gain))
        low, high = ops.fori_loop(0, BISECTIONS, halve, (0.0 * top, top))
        full = gain > per_example(high, gain)
        partly = ops.logical_and(gain > per_example(low, gain), ops.logical_not(full))
        rest = needed - _flat_sum(ops.where(full, weight, 0.0))
        share = rest / ops.maximum(_flat_sum(ops.where(partly, weight, 0.0)), _tiny(gain))
        return room * ops.where(full, 1.0, ops.where(partly, per_example(ops.clip(share, 0.0, 1.0), gain), 0.0))

    def nearest(self, x_adv, x, eps):
        # The Karush-Kuhn-Tucker conditions give |z - x| = clip(|x_adv - x| - t, 0, room) with one t >= 0 per example.
        distance, room, sign = _distance_and_room(x_adv, x)

        def change(t):
            return ops.clip(distance - per_example(t, x), 0.0, room)

        def closed_form(t):
            above = distance - per_example(t, x)
            full = above >= room
            free = ops.logical_and(above > 0.0, ops.logical_not(full))
            count = _flat_sum(ops.cast(free, x.dtype))
            excess = _flat_sum(ops.where(full, room, ops.where(free, distance, 0.0))) - eps
            return ops.maximum(excess / ops.maximum(count, 1.0), 0.0), count > 0.0

        top = ops.max(distance, axis=_pixels(x))
        t = _solve(lambda t: self.size(change(t)) <= eps, closed_form, top, 0.0 * top)
        return _step_within(self, x, change(t), sign, eps)


def _tiny(x):
    return float(np.finfo(np.float32).tiny) if x.dtype != "float64" else float(np.finfo(np.float64).tiny)


def _distance_and_room(x_adv, x):
    """How far each entry wants to move, how far the box lets it, and in which direction."""
    delta = x_adv - x
    return ops.abs(delta), ops.where(delta > 0.0, 1.0 - x, x), ops.sign(delta)


def _fill(gain, speed, room, needed):
    """Sizes min(t * speed, room), with the one t >= 0 per example at which sum(gain * sizes) = needed.

    The sum is concave in t and linear between the points where an entry's room is used up: Newton's method from t = 0
    never overshoots and ends after finitely many steps, seldom more than ten. `room` where that is not enough.
    """

    def sizes(t):
        return ops.minimum(per_example(t, gain) * speed, room)

    def missing(t):
        return needed - _flat_sum(gain * sizes(t))

    def go_on(t, missing, slope):
        return ops.any(ops.logical_and(missing > 1e-6 * needed, slope > 0.0))

    def newton(t, rest, slope):
        t = t + ops.where(slope > 0.0, ops.maximum(rest, 0.0) / ops.maximum(slope, _tiny(gain)), 0.0)
        return t, missing(t), remaining(t)

    def remaining(t):
        free = per_example(t, gain) * speed < room
        return _flat_sum(ops.where(free, gain * speed, 0.0))

    zero = 0.0 * needed
    start = (zero, needed, remaining(zero))
    t, _, _ = ops.while_loop(go_on, newton, start, maximum_iterations=NEWTON_STEPS)
    return sizes(t)


def _solve(feasible, closed_form, inside, outside):
    """The multiplier between `inside` (feasible) and `outside` at which the ball is just reached, shape (batch,).

    Bisection finds which entries stop at the box; with these known the multiplier has a closed form, which removes
    what bisection leaves. Where the box alone keeps the point in the ball the answer is `outside`.
    """

    def halve(_, bracket):
        inside, outside = bracket
        middle = 0.5 * (inside + outside)
        good = feasible(middle)
        return ops.where(good, middle, inside), ops.where(good, outside, middle)

    low, high = ops.fori_loop(0, BISECTIONS, halve, (inside, outside))
    exact, defined = closed_form(0.5 * (low + high))
    exact = ops.clip(exact, ops.minimum(inside, outside), ops.maximum(inside, outside))
    return ops.where(feasible(outside), outside, ops.where(defined, exact, low))


def _step_within(norm, x, change, sign, eps):
    """`x` moved by at most `change` in each entry and at most `eps` in all, exactly `x` for eps = 0."""
    change = change * per_example(ops.minimum(eps / ops.maximum(norm.size(change), _tiny(x)), 1.0), x)
    z = _clip_to_box(x + sign * change)
    # The sum may have been rounded away from x; over many pixels that would add up.
    towards_x = ops.where(change > PIXEL_ROUNDING, z - sign * PIXEL_ROUNDING, x)
    return ops.where(ops.abs(z - x) > change, towards_x, z)


NORMS = {"Linf": Linf(), "L2": L2(), "L1": L1()}
