"""Paired differences of all that two reports have."""

from dataclasses import replace

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.evaluation.comparison import attacked_otherwise, differences
from keras_robust.statistics import Measured
from tests.evaluation.samples import L2, LINF, N, report, result

pytestmark = pytest.mark.once

EVERYWHERE = kr.ThreatModel("L2", None)


def with_curve(robust, distance, **attack_settings):
    """A report whose 150 right images are all misclassified at one distance."""
    one = report(robust, resolutions=(32,), attack_settings=attack_settings)
    threats = (*one.settings.threats, replace(one.settings.threats[-1], eps=None))
    cell = result(EVERYWHERE, 32, 150, 0)
    norms = np.where(cell.misclassified_at == 1, distance, 0).astype(np.float32)
    settings = replace(one.settings, threats=threats)
    return replace(one, settings=settings, results=[*one.results, replace(cell, perturbation_norm=norms)])


def test_every_figure_of_both_has_a_row():
    found = differences(with_curve(100, 1.0), with_curve(120, 0.5))
    assert [row.label for row in found] == [
        *("clean", "Linf 4/255", "Linf 8/255", "L2 0.5", "all threat models", "L2 curve to 1"),
    ]
    clean, linf = found[0], found[1]
    assert (clean.text, clean.only, clean.p_value) == ("+0.0 points (-1.0 to +1.0)", ("0", "0"), "1.000")
    assert (linf.text[:12], linf.only, linf.p_value) == ("+10.0 points", ("20", "0"), "< 0.001")


def test_figures_of_other_attacks_are_not_compared():
    first, second = with_curve(100, 1.0), with_curve(120, 0.5, n_iter=10)
    assert [row.label for row in differences(first, second)] == ["clean"]
    assert attacked_otherwise(first, second) == ["Linf 4/255", "Linf 8/255", "L2 0.5", "L2 curve"]
    # Attacks within one more radius find nearer images, too.
    fewer = replace(second, results=[each for each in first.results if each.threat != L2])
    assert attacked_otherwise(first, replace(fewer, settings=first.settings)) == ["L2 curve"]
    # The seed is no other attack, and a threat model of one of the two keeps the other figures.
    seeded = with_curve(120, 0.5, seed=1)
    assert attacked_otherwise(first, seeded) == []
    assert "L2 curve to 1" in [row.label for row in differences(first, seeded)]
    one = report(120, threats=(LINF,))
    assert [row.label for row in differences(report(100), one)][:2] == ["clean", "Linf 4/255"]


def test_a_model_without_gradients_is_not_compared_under_attack():
    one = report(100)
    settings = replace(one.settings, model=replace(one.settings.model, differentiable=False))
    assert not one.met_same_attacks(replace(one, settings=settings), [LINF])
    transferred = replace(one.settings, surrogate_sha256="3" * 64)
    assert not one.met_same_attacks(replace(one, settings=transferred), [LINF])


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
