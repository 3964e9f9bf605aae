"""Calibration against brute force and figures by hand."""

import numpy as np
import pytest

from keras_robust.evaluation.calibration import Calibration, certainty

pytestmark = pytest.mark.once


def by_brute_force(confidence, correct, n_bins=15):
    """Guo et al. 2017, equation 3, bin by bin with ends included above."""
    total = 0.0
    for m in range(n_bins):
        held = [i for i in range(len(correct)) if m / n_bins < confidence[i] <= (m + 1) / n_bins]
        if held:
            accuracy = sum(bool(correct[i]) for i in held) / len(held)
            total += len(held) / len(correct) * abs(accuracy - sum(confidence[i] for i in held) / len(held))
    return total


def test_ece_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.05, 1.0, 300)
    correct = rng.uniform(size=300) < confidence**2
    found = Calibration(np.stack([confidence, confidence], 1), correct)
    assert found.ece == pytest.approx(by_brute_force(confidence, correct), abs=1e-12)
    places, shares = zip(*found.reliability)
    assert sum(share.n for share in shares) == 300
    assert sum(abs(share.value - place) * share.n for place, share in found.reliability) / 300 == pytest.approx(
        found.ece
    )
    assert list(places) == sorted(places)
    low, high = found.measured()["ECE"].interval
    assert low < found.ece < high


def test_the_interval_of_an_error_of_zero():
    """Resampled errors all lie above it: as an interval around them would, one that mirrors them would miss it."""
    confidence, right = np.repeat([0.5, 0.9], 500), np.repeat([True, False, True, False], [250, 250, 450, 50])
    measured = Calibration(np.stack([confidence, confidence], 1), right).measured()["ECE"]
    assert measured.value == pytest.approx(0.0, abs=1e-9)
    low, high = measured.interval
    # Two independent bins that each hold half: the error of 0.5 * (|z1| * 0.0224 + |z2| * 0.0134) is near 0.014.
    assert low == 0.0
    assert 0.005 < high < 0.03


def test_brier_score_and_confidence_of_a_softmax():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]]))
    found = certainty(logits + 100.0, np.array([0, 2]))
    np.testing.assert_allclose(found[:, 0], [0.7, 0.6], rtol=1e-6)
    np.testing.assert_allclose(found[:, 1], [0.09 + 0.04 + 0.01, 0.01 + 0.36 + 0.49], rtol=1e-6)


def test_large_logits_and_those_that_are_not_finite():
    logits = np.array([[1e4, 0.0], [np.nan, 0.0], [np.inf, 0.0]])
    np.testing.assert_allclose(certainty(logits, np.array([0, 0, 0])), [[1, 0], [1, 2], [1, 2]])


def test_a_model_that_is_always_sure():
    sure = Calibration(np.array([[1.0, 0.0], [1.0, 2.0]]), np.array([True, False]))
    assert (sure.ece, sure.brier) == (0.5, 1.0)
    assert len(sure.reliability) == 1
