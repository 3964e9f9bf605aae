"""Base of the norms, and arithmetic on each example of a batch."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust.types import Array, Tensor

# A computed norm of a point on the sphere is off by a few roundings; without this slack such points would not count
# as inside, and projecting twice would move them twice.
RELATIVE_SLACK = 1e-6
MEASURED_SLACK = 2e-6  # the same of a norm that is measured in float64
PIXEL_ROUNDING = 2.0**-24  # the spacing of float32 below 1
LEVELS = 255.0  # of a pixel in 8 bits, above black
LEVEL_ROUNDING = 1e-3  # by which a float may miss a whole number of levels
THRESHOLD_HALVINGS = 6
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


def pixel_axes(values: Tensor) -> tuple[Any, ...]:
    """The axes of one example."""
    return tuple(range(1, len(values.shape)))


def flat_sum(values: Tensor) -> Tensor:
    return ops.sum(values, axis=pixel_axes(values))


def clip_to_box(x: Tensor) -> Tensor:
    return ops.clip(x, 0.0, 1.0)


def is_double(x: Tensor) -> bool:
    return keras.backend.standardize_dtype(x.dtype) == "float64"


def tiny(x: Tensor) -> float:
    return float(np.finfo(np.float64 if is_double(x) else np.float32).tiny)


def ones_where(condition: Tensor, like: Tensor) -> Tensor:
    """1 where it holds, 0 elsewhere, in the dtype of `like`: multiplying by it is faster than selecting."""
    return ops.cast(condition, like.dtype)


def room_of(x: Tensor, sign: Tensor) -> Tensor:
    """How far the box lets each entry move in the direction `sign`."""
    along = sign * x
    return ops.maximum(sign - along, -along)


def nth_largest(values: Tensor, count: Tensor) -> Tensor:
    """Of each example's `values` (batch, ..., channels), non-negative floats, the one that `count` (batch,) reach.

    Bit by bit, as such floats are ordered like the integers of the same bits: exact, and four times as fast as sorting.
    """
    integer, digits = ("int64", 62) if is_double(values) else ("int32", 30)
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
        inside_box = ops.all(ops.logical_and(x_adv >= 0.0, x_adv <= 1.0), axis=pixel_axes(x))
        return ops.logical_and(inside_box, self.of(x_adv - x) <= eps * (1.0 + RELATIVE_SLACK))

    def to_hyperplane(self, x: Tensor, normal: Tensor, gap: Tensor) -> Tensor:
        """The smallest change of `x`, in this norm, that reaches a hyperplane inside the box.

        `gap` (batch,) is the value at `x` of a linear function with gradient `normal`: the change d solves
        gap + <normal, d> = 0 with x + d in [0, 1]. Where the box does not reach that far, d goes as far as it can.
        (Croce & Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack", section 3.)
        """
        sign = -ops.sign(normal) * per_example(ops.sign(gap), x)
        return sign * self.cheapest(ops.abs(normal), room_of(x, sign), ops.abs(gap))

    def cheapest(self, gain: Any, room: Any, needed: Any) -> Any:
        """Sizes 0 <= c <= room of least norm with sum(gain * c) = needed per example; `room` if that is too little."""
        raise NotImplementedError

    def project(self, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
        """Euclidean projection onto ball and box; points inside come back unchanged to the last bit."""
        return choose(self.contains(x_adv, x, eps), x_adv, self.nearest(x_adv, x, eps))


def on_8_bit_grid(norm: Norm, x_adv: Tensor, x: Tensor, eps: Any) -> Tensor:
    """A point of the ball near `x_adv` whose pixels are multiples of 1/255, as those of `x` are.

    Pixels go to the nearest level or, where this leaves the ball, only those that are nearest to theirs: towards the
    image go those whose fraction of a level is below a threshold, the least of each image by which the point is inside.
    """
    change = LEVELS * (x_adv - x)
    size, sign = ops.abs(change), ops.sign(change)

    def rounded(threshold: Tensor) -> Tensor:
        return sign * ops.floor(size + (1.0 + LEVEL_ROUNDING) - per_example(threshold, x))

    def is_inside(threshold: Tensor) -> Tensor:
        # Of whole numbers, which no rounding of pixels blurs.
        return norm.of(rounded(threshold)) <= LEVELS * eps * (1.0 + RELATIVE_SLACK)

    # The last threshold sends every pixel towards the image, also one whose size was rounded to just below a level.
    nearest = outside = 0.5 * ops.ones_like(x[:, 0, 0, 0])
    inside = (1.0 + LEVEL_ROUNDING) * ops.ones_like(outside)
    for _ in range(THRESHOLD_HALVINGS):
        middle = 0.5 * (outside + inside)
        fits = is_inside(middle)
        outside, inside = ops.where(fits, outside, middle), ops.where(fits, middle, inside)
    levels = rounded(ops.where(is_inside(nearest), nearest, inside))
    moved = clip_to_box((ops.round(LEVELS * x) + levels) / LEVELS)
    # Pixels that stay keep their last bit, too; the float next to a level on the sphere may lie just outside.
    return norm.project(ops.where(levels == 0.0, x, moved), x, eps)


def step_within(norm: Norm, x: Tensor, change: Tensor, sign: Tensor, eps: Any) -> Tensor:
    """`x` moved by at most `change` in each entry and at most `eps` in all, exactly `x` for eps = 0."""
    change = change * per_example(ops.minimum(eps / ops.maximum(norm.of(change), tiny(x)), 1.0), x)
    change = change * ones_where(change > PIXEL_ROUNDING, x)
    z = clip_to_box(x + sign * change)
    # The sum may have been rounded away from x; over many pixels that would add up.
    return z - sign * PIXEL_ROUNDING * ones_where(ops.abs(z - x) > change, x)
