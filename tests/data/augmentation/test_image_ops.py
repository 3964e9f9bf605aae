"""What becomes of the pixels of one image, against the definitions written out."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from keras_robust.data.augmentation import image_ops
from tests.data import files

NOWHERE = np.zeros(4, np.int32)
SEED = np.array([7, 2**31 - 1], np.int32)


@pytest.fixture
def image():
    return np.asarray(Image.fromarray(np.ascontiguousarray(files.photographs(1)[0][0])).resize((40, 30)))


@pytest.fixture
def other(image):
    return image[::-1, ::-1].copy()


def test_resize_and_flip(image):
    picture = Image.fromarray(image)
    resized = picture.resize((24, 24), Image.Resampling.BICUBIC)
    for flip, expected in ((False, resized), (True, ImageOps.mirror(resized))):
        result = image_ops.by_pillow(image, lambda picture, flip=flip: image_ops.resize_and_flip(picture, 24, flip))
        np.testing.assert_array_equal(result, np.asarray(expected))


def test_operations_in_turn_and_none_for_minus_one(image):
    names = ("Invert", "Brightness")
    picture = Image.fromarray(image)
    same = image_ops.vary(picture, names, np.array([-1, -1]), np.array([9.0, 9.0], np.float32))
    np.testing.assert_array_equal(np.asarray(same), image)
    result = image_ops.vary(picture, names, np.array([1, 0]), np.array([-5.0, 9.0], np.float32))
    darker = Image.blend(Image.new("RGB", picture.size), picture, 1.0 - 0.9 * 5 / 10)
    np.testing.assert_array_equal(np.asarray(result), 255 - np.asarray(darker))


def test_erased_box_is_standard_normal_noise(image):
    top, left, height, width = box = np.array([3, 5, 20, 30], np.int32)
    result = image_ops.erase(image, box, SEED)
    inside = np.zeros(image.shape, bool)
    inside[top : top + height, left : left + width] = True
    np.testing.assert_array_equal(result[~inside], image[~inside] / np.float32(255))
    noise = result[inside]
    # 1,800 draws: the mean's standard error is 0.024, that of the standard deviation 0.017; four of them.
    assert abs(noise.mean()) < 0.1
    assert abs(noise.std() - 1.0) < 0.07
    np.testing.assert_array_equal(image_ops.erase(image, box, SEED), result)
    assert not np.array_equal(image_ops.erase(image, box, SEED - 1), result)


@pytest.mark.parametrize("share", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("box", [(0, 0, 0, 0), (2, 9, 0, 40), (0, 30, 0, 40)])
def test_mixture_by_its_definition(image, other, share, box):
    rows, columns = np.arange(30)[:, None, None], np.arange(40)[None, :, None]
    inside = (rows >= box[0]) & (rows < box[1]) & (columns >= box[2]) & (columns < box[3])
    weight = np.where(inside, 0.0, share)
    expected = (weight * image + (1.0 - weight) * other) / 255
    before = image.copy(), other.copy()
    result = image_ops.finish(
        (image, NOWHERE, SEED), (other, NOWHERE, SEED), np.float32(share), np.array(box, np.int32)
    )
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=2e-7)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(other, before[1])


def test_clipped_after_mixing_not_before(image, other):
    """Half of the noise of one image and half of the other: clipped noise would never reach 0."""
    everything, half = np.array([0, 0, 30, 40], np.int32), np.float32(0.5)
    noise = image_ops.erase(image, everything, SEED)
    result = image_ops.finish((image, everything, SEED), (other, NOWHERE, SEED), half, NOWHERE)
    np.testing.assert_allclose(result, np.clip(0.5 * noise + 0.5 * other / 255.0, 0.0, 1.0), atol=2e-7)
    assert (result == 0.0).any()
    assert (result == 1.0).any()


def test_alone_and_where_tensorflow_takes_it_over(image):
    result = image_ops.finish((image, NOWHERE, SEED))
    np.testing.assert_array_equal(result, image / np.float32(255))
    assert result.ctypes.data % 64 == 0
    assert result.flags.c_contiguous
