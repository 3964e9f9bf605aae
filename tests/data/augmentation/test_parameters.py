"""The distributions of crops, boxes and shares: against scipy, and against plain loops like those of the publications.

Kolmogorov-Smirnov tests with fixed seeds: a wrong distribution has a p-value of 0 at these sizes, a right one was drawn
once and stays where it is.
"""

import math

import numpy as np
import pytest
from keras import ops
from scipy import stats

from keras_robust import random
from keras_robust.data import BASIC, HEAVY, Policy
from keras_robust.data.augmentation import parameters

N = 4000


def numpy_numbers(count):
    return np.random.default_rng(0).random((N, count))


def device_numbers(count):
    """What `DeviceAugmentation` draws from."""
    keys = random.example_keys(0, 0, ops.arange(N, dtype="int32"))
    return ops.convert_to_numpy(random.uniform(keys, ops.zeros((N, count)))).astype("float64")


def crop_like_torchvision(rng, height, width, scale, ratio):
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = round(w / ratio[0])
    elif width / height > ratio[1]:
        w = round(h * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def erasing_like_timm(rng, side, probability, area, ratio):
    if rng.random() > probability:
        return 0, 0, 0, 0
    for _ in range(10):
        target, aspect = rng.uniform(*area) * side**2, math.exp(rng.uniform(*map(math.log, ratio)))
        h, w = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if w < side and h < side:
            return rng.integers(0, side - h + 1), rng.integers(0, side - w + 1), h, w
    return 0, 0, 0, 0


def assert_same(one, other):
    assert stats.ks_2samp(one, other).pvalue > 0.01


@pytest.mark.once
@pytest.mark.parametrize("size", [(375, 500), (500, 375), (128, 128)])
def test_crops_have_the_distribution_of_a_plain_loop(size):
    rng = np.random.default_rng(1)
    expected = np.array([crop_like_torchvision(rng, *size, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(N)])
    height, width = (np.full(N, float(length)) for length in size)
    actual = np.stack(
        parameters.crop_box(numpy_numbers(parameters.CROP), height, width, (0.08, 1.0), (3 / 4, 4 / 3), np), -1
    )
    assert (actual == np.round(actual)).all()
    assert (actual[:, :2] >= 0).all()
    assert (actual[:, :2] + actual[:, 2:] <= size).all()
    for column in range(4):
        assert_same(actual[:, column], expected[:, column])
    assert_same(actual[:, 2] * actual[:, 3], expected[:, 2] * expected[:, 3])
    assert_same(actual[:, 3] / actual[:, 2], expected[:, 3] / expected[:, 2])


@pytest.mark.once
@pytest.mark.parametrize(
    ("size", "box"), [((10, 200), (0, 93, 10, 13)), ((200, 10), (93, 0, 13, 10)), ((1, 1), (0, 0, 1, 1))]
)
def test_where_no_crop_fits_the_largest_centred_one_is_taken(size, box):
    """Scale and ratio ask for more than the image has; of width 13 = round(10 * 4 / 3)."""
    numbers = np.full(parameters.CROP, 0.5)
    height, width = (np.float64(length) for length in size)
    actual = parameters.crop_box(numbers, height, width, (0.9, 1.0), (3 / 4, 4 / 3), np)
    assert tuple(int(edge) for edge in actual) == box


@pytest.mark.once
def test_erasing_has_the_distribution_of_a_plain_loop():
    rng = np.random.default_rng(2)
    expected = np.array([erasing_like_timm(rng, 224, 0.25, (0.02, 1 / 3), (0.3, 3.3)) for _ in range(N)])
    actual = np.stack(
        parameters.erase_box(numpy_numbers(parameters.ERASE), 224.0, 0.25, (0.02, 1 / 3), (0.3, 3.3), np), -1
    )
    erased, should = actual[:, 2] > 0, expected[:, 2] > 0
    assert stats.binomtest(int(erased.sum()), N, 0.25).pvalue > 0.01
    assert (actual[:, :2] + actual[:, 2:] <= 224).all()
    for column in range(4):
        assert_same(actual[erased, column], expected[should, column])
    areas, expected_areas = ((box[:, 2] * box[:, 3]) for box in (actual[erased], expected[should]))
    assert_same(areas, expected_areas)


@pytest.mark.once
@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 4.0])
def test_shares_have_the_beta_distribution(alpha):
    """By its quantiles, to three decimals, and by a sample."""
    quantiles = np.linspace(0.001, 0.999, 999)
    actual = parameters.symmetric_beta(quantiles, alpha, np)
    np.testing.assert_allclose(actual, stats.beta(alpha, alpha).ppf(quantiles), atol=1e-3)
    assert (
        stats.kstest(parameters.symmetric_beta(numpy_numbers(1)[:, 0], alpha, np), stats.beta(alpha, alpha).cdf).pvalue
        > 0.01
    )


@pytest.mark.once
def test_mixing_is_half_mixup_half_cutmix():
    share, blend, box = parameters.mixture(numpy_numbers(parameters.MIX), 224.0, HEAVY, np)
    top, bottom, left, right = box
    cut = blend == 1.0
    assert stats.binomtest(int(cut.sum()), N, 0.5).pvalue > 0.01
    np.testing.assert_array_equal(share[~cut], blend[~cut])
    assert ((bottom - top)[~cut] == 0).all()
    assert stats.kstest(share[~cut], stats.beta(0.8, 0.8).cdf).pvalue > 0.01
    np.testing.assert_allclose(share[cut], 1 - ((bottom - top) * (right - left))[cut] / 224**2)
    assert min(edge.min() for edge in box) >= 0
    assert max(edge.max() for edge in box) <= 224

    # Against a plain loop: lambda uniform, the box around a uniform centre, clipped.
    rng = np.random.default_rng(3)
    expected = []
    for _ in range(N):
        half = int(224 * math.sqrt(1 - rng.random())) // 2
        edges = [np.clip([c - half, c + half], 0, 224) for c in rng.integers(0, 224, 2)]
        expected.append(1 - np.prod([high - low for low, high in edges]) / 224**2)
    assert_same(share[cut], expected)


@pytest.mark.once
@pytest.mark.parametrize(("policy", "cut"), [(Policy(mixup_alpha=0.4), False), (Policy(cutmix_alpha=1.0), True)])
def test_one_kind_of_mixing_alone(policy, cut):
    _, blend, _ = parameters.mixture(numpy_numbers(parameters.MIX), 32.0, policy, np)
    assert ((blend == 1.0) == cut).all()


@pytest.mark.once
def test_operations_and_magnitudes():
    which, magnitude, sign = parameters.operations(numpy_numbers(parameters.OPERATION), HEAVY)
    assert stats.binomtest(int((which >= 0).sum()), N, 0.5).pvalue > 0.01
    assert stats.chisquare(np.bincount(which[which >= 0], minlength=15)).pvalue > 0.01
    assert stats.binomtest(int((sign > 0).sum()), N, 0.5).pvalue > 0.01
    assert magnitude.max() == 10.0
    clipped = np.clip(stats.norm(9, 0.5).rvs(N, random_state=4), 0, 10)
    assert_same(magnitude, clipped)


def test_the_device_draws_the_same_boxes_and_shares():
    """The same formulas by `keras.ops` on the device's own numbers, against numpy on numpy's."""
    size = np.full(N, 128.0, "float32")
    crop = ((0.08, 1.0), (3 / 4, 4 / 3))
    erase = (32.0, 0.25, (0.02, 1 / 3), (0.3, 3.3))
    numbers = device_numbers(parameters.CROP + parameters.ERASE + parameters.MIX).astype("float32")
    parts = np.split(numbers, [parameters.CROP, parameters.CROP + parameters.ERASE], axis=1)
    for part, count, function, arguments in (
        (parts[0], parameters.CROP, parameters.crop_box, (size, size, *crop)),
        (parts[1], parameters.ERASE, parameters.erase_box, erase),
    ):
        tensors = [ops.array(each) if isinstance(each, np.ndarray) else each for each in arguments]
        actual = function(ops.array(part), *tensors, ops)
        exact = function(part, *arguments, np)
        for one, same, other in zip(actual, exact, function(numpy_numbers(count), *arguments, np)):
            one = ops.convert_to_numpy(one)
            assert (one != same).mean() < 0.001  # float32 roundings at a half
            assert_same(one, other)
    share, blend, _ = parameters.mixture(ops.array(parts[2]), 32.0, HEAVY, ops)
    expected, expected_blend, _ = parameters.mixture(numpy_numbers(parameters.MIX), 32.0, HEAVY, np)
    assert_same(ops.convert_to_numpy(share), expected)
    assert_same(ops.convert_to_numpy(blend), expected_blend)


@pytest.mark.once
def test_policies_are_the_papers_table():
    table = {
        "crop_scale": (0.08, 1.0),
        "aspect_ratio": (3 / 4, 4 / 3),
        "flip_probability": 0.5,
        "n_operations": 2,
        "operation_probability": 0.5,
        "magnitude": 9.0,
        "magnitude_std": 0.5,
        "erase_probability": 0.25,
        "erase_area": (0.02, 1 / 3),
        "erase_aspect_ratio": (0.3, 3.3),
        "mixup_alpha": 0.8,
        "cutmix_alpha": 1.0,
        "cutmix_probability": 0.5,
        "group_size": 80,
        "label_smoothing": 0.1,
    }
    assert {name: getattr(HEAVY, name) for name in table} == table
    assert len(HEAVY.operations) == 15
    for name in ("flip_probability", "erase_probability", "mixup_alpha", "cutmix_alpha", "label_smoothing"):
        assert getattr(BASIC, name) == 0.0
    assert BASIC.operations == ()


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flip_probability": 1.5}, "flip_probability must be in"),
        ({"crop_scale": (0.5, 0.1)}, r"crop_scale must be a pair 0 < low <= high <= 1; received \(0.5, 0.1\)"),
        ({"crop_scale": 0.5}, "crop_scale must be a pair of numbers"),
        ({"aspect_ratio": (0.0, 1.0)}, "aspect_ratio must be a pair 0 < low <= high"),
        ({"operations": ("Sepia",)}, "operations must be one of 'AutoContrast'.*received 'Sepia'"),
        ({"magnitude": 11}, "magnitude must be in"),
        ({"mixup_alpha": -1.0}, "mixup_alpha must be a finite number >= 0"),
        ({"group_size": 1}, "group_size must be an integer >= 2"),
        ({"label_smoothing": float("nan")}, "label_smoothing must be a finite number"),
    ],
)
def test_policies_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        Policy(**arguments)


@pytest.mark.once
def test_policies_may_come_from_json():
    assert Policy(crop_scale=[0.2, 1.0], operations=["Invert"]) == Policy(crop_scale=(0.2, 1.0), operations=("Invert",))
