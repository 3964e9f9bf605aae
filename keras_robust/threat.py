"""Threat models: a norm, a radius, and the geometry of the ball intersected with the box of valid pixels."""

from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real

import keras
import numpy as np
from keras import ops

from keras_robust import random

# A computed norm of a point on the sphere is off by a few roundings; without this slack such points would not count
# as inside, and projecting twice would move them twice.
RELATIVE_SLACK = 1e-6
PIXEL_ROUNDING = 2.0**-24  # the spacing of float32 below 1
BISECTIONS = 40


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

    def project(self, x_adv, x, eps):
        """Euclidean projection onto ball and box; points inside come back unchanged to the last bit."""
        return ops.where(per_example(self.contains(x_adv, x, eps), x), x_adv, self.nearest(x_adv, x, eps))


class Linf(Norm):
    """Largest absolute change of a pixel value."""

    def size(self, delta):
        return ops.max(ops.abs(delta), axis=_pixels(delta))

    def step(self, gradient):
        return ops.sign(gradient)

    def random(self, keys, x, eps):
        return _clip_to_box(x + eps * (2.0 * random.uniform(keys, x) - 1.0))

    def nearest(self, x_adv, x, eps):
        return _clip_to_box(ops.clip(x_adv, x - eps, x + eps))

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

    def random(self, keys, x, eps):
        return self.retract(x + eps * self.step(random.normal(keys, x)), x, eps)

    def retract(self, x_adv, x, eps):
        delta = x_adv - x
        length = self.size(delta)
        scaled = delta / per_example(length + 1e-12, x) * per_example(ops.minimum(length, eps), x)
        return _clip_to_box(x + scaled)

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


@dataclass(frozen=True)
class ThreatModel:
    """What an adversary may do to an image: move it by at most `eps` in a norm, inside the pixel range [0, 1].

    Args:
        norm: "Linf", "L2" or "L1".
        eps: radius >= 0, in units of pixels in [0, 1]. On ImageNet: 4/255 for Linf, 2 for L2, 75 for L1
            (Singh et al. 2023, section 4).

    Raises:
        ValueError: unknown norm, or a radius that is negative or not finite.

    Images are float arrays of shape (batch, height, width, channels); numpy in gives numpy out, backend tensors
    give backend tensors.

    Example:
        >>> threat = ThreatModel("Linf", 4 / 255)
        >>> x_adv = threat.project(x + noise, x)
        >>> bool((threat.size(x_adv - x) <= 4 / 255 + 1e-6).all())
        True
    """

    norm: str
    eps: float

    def __post_init__(self):
        if not isinstance(self.norm, str) or self.norm not in NORMS:
            guess = get_close_matches(str(self.norm).capitalize(), NORMS, n=1, cutoff=0.4)
            hint = f" Did you mean {guess[0]!r}?" if guess else ""
            raise ValueError(f"norm must be one of {', '.join(map(repr, NORMS))}; received {self.norm!r}.{hint}")
        if not isinstance(self.eps, Real) or isinstance(self.eps, bool):
            raise ValueError(f"eps must be a real number >= 0; received {self.eps!r}.")
        if not np.isfinite(self.eps) or self.eps < 0:
            raise ValueError(f"eps must be a finite number >= 0; received {self.eps!r}.")
        object.__setattr__(self, "eps", float(self.eps))

    def __str__(self):
        multiple = self.eps * 255
        whole = self.norm == "Linf" and abs(multiple - round(multiple)) < 1e-6 and self.eps > 0
        return f"{self.norm} {round(multiple)}/255" if whole else f"{self.norm} {self.eps:g}"

    @property
    def geometry(self):
        """The `Norm` behind the name: functions that take the radius as an argument."""
        return NORMS[self.norm]

    def size(self, delta):
        """Norm of each example of `delta` (batch, ...), shape (batch,)."""
        return self._call(self.geometry.size, delta)

    def project(self, x_adv, x):
        """Nearest point to `x_adv` (Euclidean) in the ball around `x` and in [0, 1], exact for each norm.

        `x` must lie in [0, 1]. Points already inside come back unchanged, bit for bit.
        """
        if np.shape(x_adv) != np.shape(x):
            raise ValueError(f"x_adv and x must have the same shape; received {np.shape(x_adv)} and {np.shape(x)}.")
        return self._call(lambda a, b: self.geometry.project(a, b, self.eps), x_adv, x)

    def contains(self, x_adv, x):
        """Whether each example of `x_adv` lies in the ball around `x` and in [0, 1]; booleans of shape (batch,)."""
        return self._call(lambda a, b: self.geometry.contains(a, b, self.eps), x_adv, x)

    def random_start(self, x, seed=0):
        """A random point of the ball around each image, inside [0, 1], float32; fixed by the seed and the position."""
        keys = random.example_keys(seed, 0, ops.arange(np.shape(x)[0], dtype="int32"))
        return self._call(lambda a: self.geometry.random(keys, ops.cast(a, "float32"), self.eps), x)

    def step(self, gradient):
        """Direction of steepest ascent of unit size for each example of `gradient`."""
        return self._call(self.geometry.step, gradient)

    def get_config(self):
        return {"norm": self.norm, "eps": self.eps}

    @staticmethod
    def _call(function, *images):
        for image in images:
            if len(np.shape(image)) != 4 or "float" not in str(image.dtype):
                received = f"shape {tuple(np.shape(image))} and dtype {getattr(image, 'dtype', type(image).__name__)}"
                raise ValueError(f"images must be floats (batch, height, width, channels); received {received}.")
        dtype = keras.backend.standardize_dtype(images[0].dtype)
        result = function(*(ops.convert_to_tensor(image, dtype=dtype) for image in images))
        return ops.convert_to_numpy(result) if isinstance(images[0], np.ndarray) else result
