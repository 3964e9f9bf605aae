from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops

from keras_robust import backend, random
from keras_robust.data import POLICIES, DeviceAugmentation, Policy, resize_and_crop
from keras_robust.data.augmentation import parameters
from tests.data import files

slow_on_jax = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX compiles each operation by itself outside of jit: test_compiles does"
)
HEAVY = replace(POLICIES["heavy"], operations=())


def photographs(n, side=48):
    images, labels = files.photographs(n)
    return np.stack([resize_and_crop(image, side, crop_pct=1.0) for image in images]), labels.astype("int32")


def keys(n, step=0):
    return random.example_keys(0, step, ops.arange(n, dtype="int32"))


@slow_on_jax
def test_batch_is_float_in_the_unit_interval_with_soft_labels():
    images, labels = photographs(12)
    x, y = DeviceAugmentation(replace(HEAVY, group_size=8), 32, num_classes=10)(images, labels, keys(12))
    x, y = ops.convert_to_numpy(x), ops.convert_to_numpy(y)
    assert x.shape == (12, 32, 32, 3)
    assert x.dtype == y.dtype == "float32"
    assert x.min() == 0.0
    assert x.max() == 1.0
    np.testing.assert_allclose(y.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(y.min(), 0.01, atol=1e-6)


@pytest.mark.parametrize(("side", "resolution"), [(48, 32), (24, 32), (96, 32)])
def test_crop_is_the_pixels_of_pillow(side, resolution):
    """Given the same numbers: up to the rounding to 8 bits, half a level for each of Pillow's two passes."""
    from PIL import Image

    images, _ = photographs(10, side)
    augment = DeviceAugmentation(Policy(), resolution, num_classes=10)
    numbers = np.random.default_rng(0).random((10, parameters.CROP), np.float32)
    flip = np.arange(10) % 2 == 0
    result = ops.convert_to_numpy(augment.crop(images, ops.array(numbers), ops.array(flip))) * 255
    size = np.full(10, side, np.float32)
    boxes = np.stack(parameters.crop_box(numbers, size, size, (0.08, 1.0), (3 / 4, 4 / 3), np), axis=-1).astype(int)
    for image, (top, left, height, width), mirrored, actual in zip(images, boxes, flip, result):
        crop = Image.fromarray(image).crop((left, top, left + width, top + height))
        expected = np.asarray(crop.resize((resolution, resolution), Image.Resampling.BICUBIC), float)
        np.testing.assert_allclose(actual, expected[:, ::-1] if mirrored else expected, atol=1.5)


@slow_on_jax
def test_float_images_are_taken_as_they_are():
    images, labels = photographs(4)
    augment = DeviceAugmentation(Policy(), 32, num_classes=10)
    one, _ = augment(images, labels, keys(4))
    other, _ = augment(images.astype("float32") / 255, labels, keys(4))
    np.testing.assert_allclose(ops.convert_to_numpy(one), ops.convert_to_numpy(other), atol=1e-6)


@slow_on_jax
def test_noise_is_where_the_box_is():
    augment = DeviceAugmentation(replace(HEAVY, erase_probability=1.0), 32, num_classes=10)
    numbers = np.random.default_rng(1).random((6, parameters.ERASE), np.float32)
    images, noise = np.zeros((6, 32, 32, 3), "float32"), np.ones((6, 32, 32, 3), "float32")
    result = ops.convert_to_numpy(augment.erase(ops.array(images), ops.array(numbers), ops.array(noise)))
    for erased, box in zip(
        result, np.stack(parameters.erase_box(numbers, 32.0, 1.0, (0.02, 1 / 3), (0.3, 3.3), np), -1)
    ):
        top, left, height, width = box.astype(int)
        assert erased[top : top + height, left : left + width].min() == 1.0
        assert erased.sum() == height * width * 3


def test_a_policy_is_its_two_parts():
    """Workers crop, flip and vary; the device erases, mixes and smooths; neither does what the other does."""
    whole = POLICIES["heavy"]
    host, device = whole.host_part, whole.device_part
    assert (host.erase_probability, host.label_smoothing, host.mixes) == (0.0, 0.0, False)
    assert (device.crop_scale, device.flip_probability, device.operations) == (None, 0.0, ())
    on_host = {name: getattr(host, name) for name in ("crop_scale", "flip_probability", "operations")}
    assert replace(device, **on_host) == whole
    images, labels = photographs(2, 24)
    for part, expected in (
        (POLICIES["basic"].device_part, images),
        (Policy(crop_scale=None, flip_probability=1.0), images[:, :, ::-1]),
    ):
        x, y = DeviceAugmentation(part, 24, num_classes=10)(images, labels, keys(2))
        np.testing.assert_allclose(ops.convert_to_numpy(x) * 255, expected, atol=1e-4)
        np.testing.assert_array_equal(ops.convert_to_numpy(y), np.eye(10)[labels])
    with pytest.raises(ValueError, match=r"images must be of 32 x 32 pixels where .*received 24 x 24"):
        DeviceAugmentation(device, 32, num_classes=10)(images, labels, keys(2))


def test_partners_are_mirrored_within_groups():
    """Seven images in groups of four: the fourth from the end of a group is mixed with its fourth."""
    policy = Policy(mixup_alpha=0.8, group_size=4)
    augment = DeviceAugmentation(policy, 4, num_classes=7)
    images = np.arange(7, dtype="float32")[:, None, None, None] * np.ones((7, 4, 4, 3), "float32") / 7
    labels = np.eye(7, dtype="float32")
    numbers = np.random.default_rng(2).random((7, parameters.MIX), np.float32)
    x, y = (
        ops.convert_to_numpy(each) for each in augment.mix(ops.array(images), ops.array(labels), ops.array(numbers))
    )
    for i, other in enumerate([3, 2, 1, 0, 6, 5, 4]):
        share = y[i, i] if i != other else 1.0
        np.testing.assert_allclose(x[i], share * images[i] + (1 - share) * images[other], atol=1e-6)
        if i != other:
            np.testing.assert_allclose(y[i, other], 1 - share, atol=1e-6)
            np.testing.assert_allclose(y[i, i], y[0, 0] if i < 4 else y[4, 4], atol=1e-6)


def test_cutmix_shares_are_the_areas():
    policy = Policy(cutmix_alpha=1.0, group_size=2)
    augment = DeviceAugmentation(policy, 16, num_classes=2)
    images = np.stack([np.zeros((16, 16, 3)), np.ones((16, 16, 3))] * 20).astype("float32")
    labels = np.eye(2, dtype="float32")[np.arange(40) % 2]
    numbers = np.random.default_rng(3).random((40, parameters.MIX), np.float32)
    x, y = (
        ops.convert_to_numpy(each) for each in augment.mix(ops.array(images), ops.array(labels), ops.array(numbers))
    )
    assert set(np.unique(x)) == {0.0, 1.0}
    np.testing.assert_allclose(x.mean(axis=(1, 2, 3)), y[:, 1], atol=1e-6)
    assert 0.1 < np.std(y[::2, 1]) < 0.5


@slow_on_jax
def test_examples_are_augmented_alike_in_any_batch():
    images, labels = photographs(6)
    augment = DeviceAugmentation(replace(HEAVY, mixup_alpha=0.0, cutmix_alpha=0.0), 24, num_classes=10)
    whole, _ = augment(images, labels, keys(6))
    part, _ = augment(images[2:5], labels[2:5], random.example_keys(0, 0, ops.arange(2, 5, dtype="int32")))
    np.testing.assert_allclose(ops.convert_to_numpy(whole)[2:5], ops.convert_to_numpy(part), atol=1e-5)
    other, _ = augment(images, labels, keys(6, step=1))
    assert np.abs(ops.convert_to_numpy(whole) - ops.convert_to_numpy(other)).mean() > 0.01


def test_compiles():
    images, labels = photographs(4)
    augment = DeviceAugmentation(HEAVY, 24, num_classes=10)

    class Step(keras.Layer):
        def call(self, index, training=None):
            return augment(ops.array(images), ops.array(labels), random.example_keys(3, 1, index))

    index = np.arange(4, dtype="int32")
    layer = Step()
    layer(ops.array(index))
    compiled = backend.compile(lambda frozen, index: frozen(index), layer)
    for one, other in zip(compiled(ops.array(index)), augment(images, labels, random.example_keys(3, 1, index))):
        np.testing.assert_allclose(ops.convert_to_numpy(one), ops.convert_to_numpy(other), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("heavy", 32, 10), "policy must have no RandAugment operations"),
        (("basic", 0, 10), "resolution must be an integer >= 1; received 0"),
        (("basic", 32, 1), "num_classes must be an integer >= 2; received 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DeviceAugmentation(*arguments)


def test_labels_that_do_not_fit():
    images, labels = photographs(2)
    with pytest.raises(ValueError, match="num_classes must be given"):
        DeviceAugmentation("basic", 8)(images, labels, keys(2))
    with pytest.raises(ValueError, match=r"labels must have 3 classes; received shape \(2, 2\)"):
        DeviceAugmentation("basic", 8, 3)(images, np.eye(2, dtype="float32"), keys(2))
