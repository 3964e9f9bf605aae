"""Parameters of augmentations, from uniform numbers: the same formulas for the input pipeline and for the device.

Each function takes numbers in [0, 1) and a namespace `xp` with numpy's names: numpy itself, `keras.ops`, or
TensorFlow's (`augment.NUMPY_NAMES`). Whoever calls decides where the numbers come from. All are vectorised over the
leading axes.
"""

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_robust.types import Tensor

if TYPE_CHECKING:
    from keras_robust.data.augmentation.policy import Policy


# As in the published pipelines, a box that does not fit is drawn again, up to ten times in all.
ATTEMPTS = 10
# Numbers that each function takes.
CROP, ERASE, OPERATION, MIX = 2 * ATTEMPTS + 2, 2 * ATTEMPTS + 3, 5, 4


def crop_box(numbers: Tensor, height: Any, width: Any, scale: Any, ratio: Any, xp: Any) -> tuple[Any, ...]:
    """The box of RandomResizedCrop: area uniform, ratio log-uniform, position uniform.

    Where no attempt fits, the largest centred box whose ratio is in the range.

    Args:
        numbers: shape (..., CROP).
        height, width: of the image, float tensors that broadcast against (...).
        scale, ratio: pairs (low, high): share of the image's area, and width / height.

    Returns:
        top, left, height, width: floats with whole values, shape (...).
    """
    tall, wide = height[..., None], width[..., None]
    area = (scale[0] + (scale[1] - scale[0]) * numbers[..., :ATTEMPTS]) * (tall * wide)
    ratios = xp.exp(_between(numbers[..., ATTEMPTS : 2 * ATTEMPTS], math.log(ratio[0]), math.log(ratio[1])))
    heights, widths = xp.round(xp.sqrt(area / ratios)), xp.round(xp.sqrt(area * ratios))
    fits = (heights <= tall) & (widths <= wide) & (heights >= 1.0) & (widths >= 1.0)
    any_fits, h, w = _first(fits, heights, widths, xp)
    h = xp.where(any_fits, h, xp.minimum(height, xp.round(width / ratio[0])))
    w = xp.where(any_fits, w, xp.minimum(width, xp.round(height * ratio[1])))
    h, w = xp.maximum(h, xp.ones_like(h)), xp.maximum(w, xp.ones_like(w))
    top = xp.where(any_fits, _position(numbers[..., -2], height - h, xp), xp.floor((height - h) / 2.0))
    left = xp.where(any_fits, _position(numbers[..., -1], width - w, xp), xp.floor((width - w) / 2.0))
    return top, left, h, w


def erase_box(
    numbers: Tensor, side: float, probability: float, area: tuple[float, float], ratio: tuple[float, float], xp: Any
) -> tuple[Any, ...]:
    """The box of random erasing in a square image of `side` pixels, of height and width 0 where nothing is erased.

    Args:
        numbers: shape (..., ERASE).
        area, ratio: pairs (low, high): share of the image's area, uniform, and height / width, log-uniform.

    Returns:
        top, left, height, width: floats with whole values, shape (...).
    """
    areas = _between(numbers[..., :ATTEMPTS], area[0], area[1]) * side**2
    ratios = xp.exp(_between(numbers[..., ATTEMPTS : 2 * ATTEMPTS], math.log(ratio[0]), math.log(ratio[1])))
    heights, widths = xp.round(xp.sqrt(areas * ratios)), xp.round(xp.sqrt(areas / ratios))
    any_fits, h, w = _first((heights < side) & (widths < side), heights, widths, xp)
    erased = any_fits & (numbers[..., -1] < probability)
    h, w = (xp.where(erased, length, xp.zeros_like(length)) for length in (h, w))
    return _position(numbers[..., -3], side - h, xp), _position(numbers[..., -2], side - w, xp), h, w


def mixture(numbers: Tensor, side: float, policy: "Policy", xp: Any) -> tuple[Any, ...]:
    """How the images of a group are mixed: mixup's share, or cutmix's box and the share that it leaves.

    The box has a side of `side * sqrt(1 - lambda)` and a uniform centre; what sticks out is cut off, and lambda
    corrected for it (Yun et al. 2019).

    Args:
        numbers: shape (..., MIX).

    Returns:
        (lambda_, blend, box): the share of the image in its label; the share of the image in each pixel outside of the
        box, 1 for cutmix; (top, bottom, left, right) of the box inside of which all is the partner's, empty for mixup.
    """
    switch, share = numbers[..., 0], numbers[..., 1]
    cut = switch < (policy.cutmix_probability if policy.mixup_alpha > 0 else 1.0)
    if policy.cutmix_alpha <= 0:
        cut = switch < 0.0
    lam = xp.where(cut, symmetric_beta(share, policy.cutmix_alpha, xp), symmetric_beta(share, policy.mixup_alpha, xp))
    half = xp.floor(xp.floor(side * xp.sqrt(1.0 - lam)) / 2.0)
    edges = []
    for number in (numbers[..., 2], numbers[..., 3]):
        centre = xp.floor(number * side)
        for edge in (centre - half, centre + half):
            inside = xp.minimum(xp.maximum(edge, xp.zeros_like(edge)), xp.full_like(edge, side))
            edges.append(xp.where(cut, inside, xp.zeros_like(edge)))
    left_over = 1.0 - (edges[1] - edges[0]) * (edges[3] - edges[2]) / side**2
    return xp.where(cut, left_over, lam), xp.where(cut, xp.ones_like(lam), lam), tuple(edges)


def symmetric_beta(numbers: Tensor, alpha: float, xp: Any) -> Tensor:
    """Draws from Beta(alpha, alpha) by inverting its distribution function: one number, one draw.

    The inverse is a table, linear between its entries. Below 1/2 it holds lambda^alpha, in which the distribution
    function has neither poles nor kinks, whatever alpha is.
    """
    if alpha <= 0:
        return xp.ones_like(numbers)
    table = _beta_table(alpha)
    low = xp.minimum(numbers, 1.0 - numbers)
    place = low * (2.0 * (len(table) - 1))
    weights = xp.maximum(1.0 - xp.abs(place[..., None] - xp.array(np.arange(len(table), dtype="float32"))), 0.0)
    half = xp.exp(xp.log(xp.sum(weights * xp.array(table), axis=-1) + 1e-30) / alpha)
    return xp.where(numbers < 0.5, half, 1.0 - half)


@lru_cache
def _beta_table(alpha: float, size: int = 1025, fine: int = 200_001) -> np.ndarray:
    power = np.linspace(0.0, 0.5**alpha, fine)
    density = (1.0 - power ** (1.0 / alpha)) ** (alpha - 1.0)
    distribution = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.interp(np.linspace(0.0, 1.0, size), distribution / distribution[-1], power).astype("float32")


def operations(numbers: np.ndarray, policy: "Policy") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RandAugment's choices, in numpy: positions in `policy.operations`, -1 for none, magnitudes in [0, 10], signs.

    Args:
        numbers: shape (..., OPERATION).
    """
    which = np.floor(numbers[..., 0] * len(policy.operations)).astype("int32")
    which = np.where((numbers[..., 1] < policy.operation_probability) & bool(policy.operations), which, -1)
    # Box and Muller's method; 1 - u is never 0.
    normal = np.sqrt(-2.0 * np.log(1.0 - numbers[..., 2])) * np.cos(2.0 * np.pi * numbers[..., 3])
    magnitude = np.clip(policy.magnitude + policy.magnitude_std * normal, 0.0, 10.0)
    return which, magnitude, np.where(numbers[..., 4] < 0.5, -1.0, 1.0)


def partner(index: Tensor, count: int, group_size: int, xp: Any) -> Tensor:
    """The position of each image's partner: the mirror image in its group of the batch of `count`."""
    first = index // group_size * group_size
    return first + xp.minimum(first + group_size, xp.full_like(first, count)) - 1 - index


def _between(numbers: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * numbers


def _first(fits: Tensor, heights: Tensor, widths: Tensor, xp: Any) -> tuple[Any, ...]:
    """Whether any of the attempts on the last axis fits, and height and width of the first that does."""
    order = xp.where(fits, xp.array(np.arange(ATTEMPTS, 0, -1, dtype="float32")), xp.zeros_like(heights))
    best = xp.max(order, axis=-1)
    is_first = xp.where(fits & (order >= best[..., None]), xp.ones_like(heights), xp.zeros_like(heights))
    return best > 0.0, xp.sum(heights * is_first, axis=-1), xp.sum(widths * is_first, axis=-1)


def _position(number: Tensor, room: Any, xp: Any) -> Any:
    """A whole number in [0, room], uniform. A float32 number just below 1 times room + 1 may round up to room + 1."""
    return xp.minimum(xp.floor(number * (room + 1.0)), room)
