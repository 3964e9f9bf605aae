"""Corruptions, and the figures that sum them up, by hand."""

import numpy as np
import pytest

from keras_robust.evaluation.corruptions import ALEXNET, ALEXNET_CLEAN, VERSIONS, corrupt, scores, seed_of

pytestmark = pytest.mark.once


def as_good_as_alexnet(n):
    """Answers with AlexNet's errors, as near as whole images allow."""
    return {version: np.arange(n) >= round(n * ALEXNET[version.split("/")[0]]) for version in VERSIONS}


def test_alexnet_is_at_one():
    n = 10**6
    found = scores(as_good_as_alexnet(n), np.arange(n) >= round(ALEXNET_CLEAN * n), normalised=True)
    assert found["mCE"].mean() == pytest.approx(1.0, abs=1e-5)
    assert found["relative mCE"].mean() == pytest.approx(1.0, abs=1e-5)
    # Table 1 of the publication: AlexNet's unnormalised mean error is 78.9 %. RobustBench has 21.12 % as its accuracy.
    assert 100 * found["mean accuracy"].mean() == pytest.approx(21.12, abs=0.05)


def test_figures_by_hand():
    rng = np.random.default_rng(0)
    correct = {version: rng.uniform(size=40) < 0.7 for version in VERSIONS}
    clean = rng.uniform(size=40) < 0.9
    errors, added = [], []
    for name, alexnet in ALEXNET.items():
        wrong = sum(int((~correct[f"{name}/{severity}"]).sum()) for severity in range(1, 6))
        errors.append((wrong / 5) / (alexnet * 40))
        added.append((wrong / 5 - (~clean).sum()) / ((alexnet - ALEXNET_CLEAN) * 40))
    found = scores(correct, clean, normalised=True)
    assert found["mCE"].mean() == pytest.approx(np.mean(errors))
    assert found["relative mCE"].mean() == pytest.approx(np.mean(added))
    assert found["mean accuracy"].mean() == pytest.approx(np.mean(list(correct.values())))


def test_without_all_of_them_or_on_other_images_there_is_no_mce():
    n = 10
    most = dict(list(as_good_as_alexnet(n).items())[1:])
    assert list(scores(most, np.ones(n, bool), normalised=True)) == ["mean accuracy"]
    assert list(scores(as_good_as_alexnet(n), np.ones(n, bool), normalised=False)) == ["mean accuracy"]


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "imagecorruptions", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-robust\[corruptions\]'"):
        corrupt(np.zeros((32, 32, 3), np.uint8), "fog", 1, 0)


@pytest.fixture(scope="module")
def photo():
    x, y = np.meshgrid(np.arange(40), np.arange(36))
    return np.stack([5 * x, 7 * y, 128 + 0 * x], 2).astype(np.uint8)


@pytest.mark.parametrize("name", ALEXNET)
def test_images_are_a_function_of_the_seed(photo, name):
    pytest.importorskip("imagecorruptions")
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one, again = (corrupt(photo, name, 3, seed=7) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert (one.shape, one.dtype) == (photo.shape, np.uint8)
    assert (one != photo).any()
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_the_package_does_what_the_publication_says(photo):
    pytest.importorskip("imagecorruptions")
    # Contrast at severity 1: x * 0.4 + mean * 0.6; gaussian noise at 5 has a standard deviation of 0.38, on grey.
    expected = 0.4 * photo + 0.6 * photo.mean((0, 1))
    np.testing.assert_allclose(corrupt(photo, "contrast", 1, 0), np.floor(expected + 1e-9), atol=1)
    grey = np.full((64, 64, 3), 128, np.uint8)
    noisy = corrupt(grey, "gaussian_noise", 1, 0).astype(float) - 128
    assert noisy.std() == pytest.approx(0.08 * 255, rel=0.03)
    flipped = (corrupt(grey, "impulse_noise", 5, 0) != 128).mean()
    assert flipped == pytest.approx(0.27, abs=0.015)
    shot = corrupt(grey, "shot_noise", 1, 0).astype(float)
    assert shot.std() == pytest.approx(255 * np.sqrt(128 / 255 / 60), rel=0.03)


def test_seeds_differ():
    seeds = {seed_of(0, place, version) for place in range(20) for version in VERSIONS}
    assert len(seeds) == 20 * len(VERSIONS)
    assert seed_of(1, 0, VERSIONS[0]) != seed_of(0, 0, VERSIONS[0])
