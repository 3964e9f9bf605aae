"""The operations of RandAugment, with Pillow: what they mean is what Pillow does, on which the published pipelines run.

Each takes a Pillow image in RGB and `magnitude`, a float in [-10, 10] whose sign is that of the operation where it has
one, and returns an image of the same size. Pillow releases Python's lock while it works.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from keras_robust.data.preprocessing import pillow

LEVELS = np.arange(256)


def auto_contrast(picture: Any, magnitude: float) -> Any:
    """Stretch each channel so that its darkest pixel becomes 0 and its brightest 255."""
    return pillow()[1].autocontrast(picture)


def equalize(picture: Any, magnitude: float) -> Any:
    """Spread each channel's histogram evenly over [0, 255]."""
    return pillow()[1].equalize(picture)


def invert(picture: Any, magnitude: float) -> Any:
    """255 minus each value."""
    return picture.point(_table("invert"))


def posterize(picture: Any, magnitude: float) -> Any:
    """Keep the upper 4 - int(4 m / 10) bits. At m = 10 that is none: black, as in the published pipeline."""
    return picture.point(_table("posterize", 4 - int(4 * abs(magnitude) / 10)))


def solarize(picture: Any, magnitude: float) -> Any:
    """Invert the values from 256 - int(256 m / 10) upwards."""
    return picture.point(_table("solarize", 256 - int(256 * abs(magnitude) / 10)))


def solarize_add(picture: Any, magnitude: float) -> Any:
    """Add min(128, int(110 m / 10)) to the values below 128."""
    return picture.point(_table("solarize_add", min(128, int(110 * abs(magnitude) / 10))))


def color(picture: Any, magnitude: float) -> Any:
    """Away from (or towards) the grey image."""
    return _enhance("Color", picture, magnitude)


def contrast(picture: Any, magnitude: float) -> Any:
    """Away from (or towards) the mean of the grey image."""
    return _enhance("Contrast", picture, magnitude)


def brightness(picture: Any, magnitude: float) -> Any:
    """Away from (or towards) black."""
    return _enhance("Brightness", picture, magnitude)


def sharpness(picture: Any, magnitude: float) -> Any:
    """Away from (or towards) the image smoothed by a 3 x 3 kernel of weight 5 in the centre; borders are kept."""
    return _enhance("Sharpness", picture, magnitude)


def rotate(picture: Any, magnitude: float) -> Any:
    """By +-30 m / 10 degrees about the centre."""
    return picture.rotate(30.0 * magnitude / 10, pillow()[0].Resampling.BICUBIC, fillcolor=BLACK)


def shear_x(picture: Any, magnitude: float) -> Any:
    """Rows are shifted by +-0.3 m / 10 of their height in the image."""
    return _affine(picture, (1, 0.3 * (magnitude / 10), 0, 0, 1, 0))


def shear_y(picture: Any, magnitude: float) -> Any:
    """Columns are shifted by +-0.3 m / 10 of their place in the image."""
    return _affine(picture, (1, 0, 0, 0.3 * (magnitude / 10), 1, 0))


def translate_x(picture: Any, magnitude: float) -> Any:
    """Shifted sideways by +-0.45 m / 10 of the width."""
    return _affine(picture, (1, 0, 0.45 * (magnitude / 10) * picture.width, 0, 1, 0))


def translate_y(picture: Any, magnitude: float) -> Any:
    """Shifted up or down by +-0.45 m / 10 of the height."""
    return _affine(picture, (1, 0, 0, 0, 1, 0.45 * (magnitude / 10) * picture.height))


FUNCTIONS = {
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": invert,
    "Rotate": rotate,
    "Posterize": posterize,
    "Solarize": solarize,
    "SolarizeAdd": solarize_add,
    "Color": color,
    "Contrast": contrast,
    "Brightness": brightness,
    "Sharpness": sharpness,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateX": translate_x,
    "TranslateY": translate_y,
}
BLACK = (0, 0, 0)
# From a parameter of the operation to the new value of each of the 256.
_TABLES = {
    "invert": lambda _: 255 - LEVELS,
    "posterize": lambda bits: LEVELS & (256 - 2 ** (8 - bits)),
    "solarize": lambda threshold: np.where(threshold <= LEVELS, 255 - LEVELS, LEVELS),
    "solarize_add": lambda added: np.where(LEVELS < 128, LEVELS + added, LEVELS),
}


@lru_cache(maxsize=1024)
def _table(kind: str, parameter: int | None = None) -> list[int]:
    return np.minimum(_TABLES[kind](parameter), 255).tolist() * 3


def _enhance(kind: str, picture: Any, magnitude: float) -> Any:
    """A blend of the image, with weight 1 + 0.9 m / 10, at least 0.1, and its degenerate form."""
    from PIL import ImageEnhance

    return getattr(ImageEnhance, kind)(picture).enhance(max(0.1, 1.0 + 0.9 * magnitude / 10))


def _affine(picture: Any, matrix: tuple[float, ...]) -> Any:
    """With Pillow's (a, b, c, d, e, f) the pixel at (x, y) of the result is that at (a x + b y + c, d x + e y + f)."""
    images, _ = pillow()
    return picture.transform(picture.size, images.Transform.AFFINE, matrix, images.Resampling.BICUBIC, fillcolor=BLACK)
