"""Paired differences of all that two reports have."""

from dataclasses import replace

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.evaluation.comparison import differences
from keras_robust.statistics import Measured
from tests.evaluation.samples import N, report, result

pytestmark = pytest.mark.once

EVERYWHERE = kr.ThreatModel("L2", None)


def with_curve(robust, distance):
    """A report whose 150 right images are all misclassified at one distance."""
    one = report(robust, resolutions=(32,))
    cell = result(EVERYWHERE, 32, 150, 0)
    norms = np.where(cell.misclassified_at == 1, distance, 0).astype(np.float32)
    return replace(one, results=[*one.results, replace(cell, perturbation_norm=norms)])


def test_every_figure_of_both_has_a_row():
    found = differences(with_curve(100, 1.0), with_curve(120, 0.5))
    assert [row.label for row in found] == [
        *("clean", "Linf 4/255", "Linf 8/255", "L2 0.5", "all threat models", "L2 curve to 1"),
    ]
    clean, linf = found[0], found[1]
    assert (clean.text, clean.only, clean.p_value) == ("+0.0 points (-1.0 to +1.0)", ("0", "0"), "1.000")
    assert (linf.text[:12], linf.only, linf.p_value) == ("+10.0 points", ("20", "0"), "< 0.001")


def test_a_curve_is_compared_by_its_area():
    # What an attack in a ball of radius 0.5 broke counts at this distance: images 100 to 149, or 120 to 149. The other
    # images that are right lie at 1: mean distances of 0.5 and 0.25 * 0.5 + ..., up to 1.
    found = differences(with_curve(100, 1.0), with_curve(120, 1.0))[-1]
    expected = ((120 + 30 * 0.5) - (100 + 50 * 0.5)) / N
    assert found.paired.difference == pytest.approx(expected)
    # Of 200 images 20 differ by one half: the standard error of the mean is that of a Bernoulli variable, halved.
    error = 1.96 * 0.5 * np.sqrt(0.1 * 0.9 / N)
    assert found.paired.interval == pytest.approx((expected - error, expected + error), abs=0.006)
    assert found.only == ("", "")
    assert found.p_value == ""


def test_the_interval_of_a_figure_covers_it():
    truth, hits, rng = 0.3, 0, np.random.default_rng(0)
    for seed in range(60):
        values = rng.exponential(truth, 150)
        low, high = Measured.of(lambda rows, values=values: values[rows].mean(), 150, seed=seed).interval
        hits += low <= truth <= high
    assert 51 <= hits <= 60  # 95 % of 60 are 57; fewer than 51 have a probability below 0.3 %


def test_limits_hold():
    assert Measured.of(lambda rows: 0.0 if 0 in rows else 1.0, 5, limits=(0.0, 1.0)).interval == (0.0, 0.0)
