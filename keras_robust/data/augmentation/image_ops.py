"""Crop, flip, erasing and mixing of images, and RandAugment by the functions of `randaugment.py`: numpy and Pillow.

Here rather than in TensorFlow because TensorFlow has no bicubic warp, and takes a pass over the memory for each
operation where these stay in place. Both release Python's lock while they work, so that threads share the cores.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_robust.data.augmentation.randaugment import FUNCTIONS
from keras_robust.data.preprocessing import pillow

ALIGNMENT = 64  # bytes; TensorFlow takes over an array that begins at a multiple of it, and copies any other


def crop(picture: Any, box: tuple[int, ...]) -> Any:
    """The part (top, left, height, width) of a Pillow image."""
    top, left, height, width = box
    return picture.crop((left, top, left + width, top + height))


def resize_and_flip(picture: Any, resolution: int, flip: bool) -> Any:
    """A crop, as a Pillow image, at the resolution, by the filter of evaluation preprocessing; mirrored if `flip`."""
    images, _ = pillow()
    picture = picture.resize((int(resolution),) * 2, images.Resampling.BICUBIC)
    return picture.transpose(images.Transpose.FLIP_LEFT_RIGHT) if flip else picture


def vary(picture: Any, names: tuple[str, ...], operations: np.ndarray, magnitudes: np.ndarray) -> Any:
    """RandAugment on a Pillow image: the operations at these positions in `names`, -1 for none."""
    for operation, magnitude in zip(operations, magnitudes):
        if operation >= 0:
            picture = FUNCTIONS[names[operation]](picture, float(magnitude))
    return picture


def by_pillow(image: np.ndarray, function: Callable) -> np.ndarray:
    """`function` of an image, uint8 (height, width, 3), as Pillow's."""
    return np.asarray(function(pillow()[0].fromarray(image)))


def erase(image: np.ndarray, box: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """An image as float32 in units of [0, 1] with standard normal noise in the box (top, left, height, width).

    The noise is not clipped: that is left to the end, after mixing. It is fixed by the seed for one release of numpy,
    which does not promise its normal draws beyond.
    """
    pixels = np.divide(image, np.float32(255), out=_empty(image.shape), dtype=np.float32)
    top, left, height, width = box
    if height and width:
        noise = np.random.Generator(np.random.Philox(key=seed.astype(np.uint64)))
        shape = (height, width, image.shape[-1])
        pixels[top : top + height, left : left + width] = noise.standard_normal(shape, np.float32)
    return pixels


def mix(pixels: np.ndarray, other: np.ndarray, share: float, box: np.ndarray) -> np.ndarray:
    """The mixture of two float images, in the memory of the first.

    Args:
        share: of the first outside of the box.
        box: (top, bottom, left, right), inside of which all is the other's.
    """
    if share < 1.0:
        np.subtract(pixels, other, out=pixels)
        np.multiply(pixels, np.float32(share), out=pixels)
        np.add(pixels, other, out=pixels)
    top, bottom, left, right = box
    pixels[top:bottom, left:right] = other[top:bottom, left:right]
    return pixels


def finish(
    own: tuple[np.ndarray, np.ndarray, np.ndarray],
    other: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    share: float = 1.0,
    box: Any = (0, 0, 0, 0),
) -> np.ndarray:
    """An image and its partner, each as `erase` takes it, erased, mixed and clipped to [0, 1]."""
    pixels = erase(*own)
    if other is not None:
        pixels = mix(pixels, erase(*other), share, box)
    return np.clip(pixels, 0.0, 1.0, out=pixels)


def _empty(shape: tuple[int, int, int]) -> np.ndarray:
    count = int(np.prod(shape))
    memory = np.empty(count + ALIGNMENT // 4, np.float32)
    first = -memory.ctypes.data % ALIGNMENT // 4
    return memory[first : first + count].reshape(shape)
