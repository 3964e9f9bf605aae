"""Each operation of RandAugment against Pillow, through Pillow's own interface."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from keras_robust.data.augmentation.policy import OPERATIONS
from keras_robust.data.augmentation.randaugment import FUNCTIONS
from tests.data import files

SIZE = (64, 64)


def enhance(kind):
    return lambda image, m: kind(image).enhance(max(0.1, 1.0 + 0.9 * m / 10))


def affine(matrix):
    def apply(image, m):
        return image.transform(image.size, Image.Transform.AFFINE, matrix(m / 10), Image.Resampling.BICUBIC)

    return apply


def solarize_add(image, m):
    added = min(128, int(110 * abs(m) / 10))
    return image.point([min(255, value + added) if value < 128 else value for value in range(256)] * 3)


def posterize(image, m):
    """No bits are black; Pillow says so up to release 12, and refuses to do it since."""
    bits = 4 - int(4 * abs(m) / 10)
    return ImageOps.posterize(image, bits) if bits else Image.new("RGB", image.size)


def by_channel(table_of):
    """An operation in numpy that replaces the values of each channel by a table of 256 made from that channel."""

    def apply(image, m):
        pixels = np.asarray(image)
        channels = [table_of(channel).astype("uint8")[channel] for channel in np.moveaxis(pixels, -1, 0)]
        return Image.fromarray(np.stack(channels, axis=-1))

    return apply


def contrast_table(channel):
    low, high, values = int(channel.min()), int(channel.max()), np.arange(256)
    scale = 255.0 / max(high - low, 1)
    return values if high <= low else np.clip((values * scale + -low * scale).astype(int), 0, 255)


def equal_table(channel):
    histogram = np.bincount(channel.ravel(), minlength=256)
    step = (histogram.sum() - histogram[np.flatnonzero(histogram)[-1]]) // 255
    if step == 0:
        return np.arange(256)
    return np.minimum((step // 2 + np.cumsum(histogram) - histogram) // step, 255)


# As in the published pipelines: magnitude m out of 10 with the sign of the operation.
PILLOW = {
    "AutoContrast": by_channel(contrast_table),
    "Equalize": by_channel(equal_table),
    "Invert": lambda image, m: ImageOps.invert(image),
    "Rotate": lambda image, m: image.rotate(30 * m / 10, Image.Resampling.BICUBIC, fillcolor=(0, 0, 0)),
    "Posterize": posterize,
    "Solarize": lambda image, m: ImageOps.solarize(image, 256 - int(256 * abs(m) / 10)),
    "SolarizeAdd": solarize_add,
    "Color": enhance(ImageEnhance.Color),
    "Contrast": enhance(ImageEnhance.Contrast),
    "Brightness": enhance(ImageEnhance.Brightness),
    "Sharpness": enhance(ImageEnhance.Sharpness),
    "ShearX": affine(lambda m: (1, 0.3 * m, 0, 0, 1, 0)),
    "ShearY": affine(lambda m: (1, 0, 0, 0.3 * m, 1, 0)),
    "TranslateX": affine(lambda m: (1, 0, 0.45 * m * SIZE[0], 0, 1, 0)),
    "TranslateY": affine(lambda m: (1, 0, 0, 0, 1, 0.45 * m * SIZE[1])),
}


@pytest.fixture(scope="module")
def images():
    """Twenty photographs' crops, two of each; a flat one, and one of two colours, where histograms degenerate."""
    crops = [np.asarray(Image.fromarray(np.ascontiguousarray(crop)).resize(SIZE)) for crop in files.photographs(20)[0]]
    flat = np.full((*SIZE, 3), (0, 200, 255), np.uint8)
    two = flat.copy()
    two[:9] = (17, 3, 254)
    return [*crops, flat, two]


def test_all_operations_are_compared():
    assert set(PILLOW) == set(FUNCTIONS) == set(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_is_that_of_pillow_to_the_bit(name, images):
    for magnitude in map(float, np.float32((9.0, -9.0, 7.3, -8.61, 10.0, -10.0, 0.0))):
        for image in images:
            expected = PILLOW[name](Image.fromarray(image), magnitude)
            result = FUNCTIONS[name](Image.fromarray(image), magnitude)
            np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))
