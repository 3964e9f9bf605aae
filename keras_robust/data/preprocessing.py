"""Preprocessing of image files to the pixels that a model sees, with numpy and Pillow: the same on every backend."""

import io
import math
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from keras_robust.checks import check_choice, check_count, check_number

INTERPOLATIONS = ("bicubic", "bilinear", "none")
# 192 MB once decoded, and below the size at which Pillow itself begins to warn.
MAX_PIXELS = 64_000_000


def decode(file: str | PathLike | bytes, name: str | None = None) -> np.ndarray:
    """Read an image file as RGB.

    The camera's EXIF orientation is applied; grey, palette and CMYK images become RGB, 16-bit grey is scaled to 8 bits;
    transparency is dropped; of an animation the first frame is taken. The size is read from the header first, so
    that a small file that would unpack to more than `MAX_PIXELS` is refused at no cost.

    Args:
        file: its path, or its content.
        name: what to call it in a message, if not by its path.

    Returns:
        uint8 array of shape (height, width, 3).

    Raises:
        ValueError: no image, a corrupt or truncated one, or one larger than `MAX_PIXELS`; the message names the file.
    """
    return np.array(decode_picture(file, name))


def decode_picture(file: str | PathLike | bytes, name: str | None = None) -> Any:
    """An image file as `decode` reads it, as a Pillow image in RGB, which spares crops a copy of the whole."""
    images, _ = pillow()
    with io.BytesIO(file) if isinstance(file, bytes) else Path(file).open("rb") as stream:
        try:
            with images.open(stream) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels are more than the {MAX_PIXELS:,} accepted")
                return _rgb(image)
        except Exception as error:  # Pillow passes on whatever a parser met: SyntaxError, struct.error, ...
            name = name or ("the content" if isinstance(file, bytes) else str(file))
            raise ValueError(f"{name} cannot be read as an image: {error}") from error


def resize_and_crop(
    image: np.ndarray, resolution: int, crop_pct: float = 0.875, interpolation: str = "bicubic"
) -> np.ndarray:
    """Evaluation preprocessing of Singh et al. 2023: shorter side to floor(resolution / crop_pct), then centre crop.

    The resize is Pillow's (bicubic with a = -0.5; widened when shrinking, which is antialiasing), rounded and clipped
    to uint8: the filter with which the published accuracies were measured. An image whose shorter side already fits is
    only cropped.

    Args:
        image: uint8 array of shape (height, width, 3).
        resolution: side of the result, in pixels.
        crop_pct: side of the crop divided by the shorter side of the image, in (0, 1]; 1 keeps the largest square.
        interpolation: "bicubic" or "bilinear"; with "none" nothing is resized: the centre of the image as it is, with
            black around one that is smaller, as torchvision's `CenterCrop` (`crop_pct` then counts for nothing).

    Returns:
        uint8 array of shape (resolution, resolution, 3).
    """
    _check_uint8_rgb(image)
    resolution = check_count("resolution", resolution)
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    if resolution**2 > MAX_PIXELS:
        raise ValueError(f"resolution must be at most {math.isqrt(MAX_PIXELS)}; received {resolution}.")
    if not 0 < check_number("crop_pct", crop_pct) <= 1:
        raise ValueError(f"crop_pct must be a number in (0, 1]; received {crop_pct!r}.")
    height, width = image.shape[:2]
    if interpolation == "none":
        if min(height, width) < resolution:
            missing = [max(resolution - side, 0) for side in (height, width)]
            image = np.pad(image, [*((side // 2, (side + 1) // 2) for side in missing), (0, 0)])
        return _centre(image, resolution)
    shorter, target = min(height, width), math.floor(resolution / crop_pct)
    if shorter != target:
        images, _ = pillow()
        height, width = target * height // shorter, target * width // shorter
        if height * width > MAX_PIXELS:  # a line of pixels, say
            raise ValueError(
                f"image must have at most {MAX_PIXELS:,} pixels with its shorter side at {target}; it has "
                f"{height} x {width}."
            )
        resized = images.fromarray(image).resize((width, height), images.Resampling[interpolation.upper()])
        image = np.asarray(resized)
    return _centre(image, resolution)


def _centre(image: np.ndarray, resolution: int) -> np.ndarray:
    top, left = (round((side - resolution) / 2) for side in image.shape[:2])
    return image[top : top + resolution, left : left + resolution]


def _rgb(image: Any) -> Any:
    """An open Pillow image of any mode, loaded, in RGB."""
    images, ops = pillow()
    form = image.format
    image.load()
    ops.exif_transpose(image, in_place=True)  # which else copies every image
    if image.mode == "F":
        raise ValueError("floating point pixels have no known range; accepted are 8-bit and 16-bit images")
    if image.mode == "I" and form != "PNG":
        raise ValueError("32-bit integer pixels have no known range; accepted are 8-bit and 16-bit images")
    if image.mode.startswith("I"):
        # Pillow's own conversion to 8 bits would clip 16-bit grey at 255 instead of scaling it.
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"pixels in [{grey.min()}, {grey.max()}]; accepted are 8-bit and 16-bit images")
        image = images.fromarray((grey >> 8).astype(np.uint8))
    if image.mode == "P":
        image = image.convert("RGBA")  # a palette may hold transparency, which Pillow converts by this way only
    return image if image.mode == "RGB" else image.convert("RGB")


def _check_uint8_rgb(image: Any) -> None:
    dtype, shape = getattr(image, "dtype", None), tuple(getattr(image, "shape", ()))
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"image must be uint8 of shape (height, width, 3); received {dtype} of shape {shape}.")


def pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("Images are read and resized by Pillow: pip install 'keras-robust[images]'") from error
    return Image, ImageOps
