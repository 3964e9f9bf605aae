"""Samples of images: drawn with the probabilities that they say, alike in any batch, and put together as they must."""

import numpy as np
import pytest

from keras_robust.attacks.sampling import Sample, SamplingPlan
from keras_robust.statistics import Estimate

PLAN = SamplingPlan({"cheap": "costly"}, nearest=0.1, probability=0.25)


def places(first, n):
    return np.arange(first, first + n, dtype=np.int32)


def test_the_nearest_are_drawn_for_certain_and_the_others_as_often_as_said():
    loss = np.random.default_rng(0).normal(size=400).astype(np.float32)
    remaining = np.arange(400) % 4 > 0
    draws = [PLAN.draw(loss, remaining, seed, places(0, 400)) for seed in range(60)]
    probability = draws[0].probability
    nearest = remaining & (probability == 1)
    assert nearest.sum() == 30  # a tenth of 300
    assert loss[nearest].min() > loss[remaining & ~nearest].max()
    assert (probability[~remaining] == 1).all()
    assert (probability[remaining & ~nearest] == np.float32(0.25)).all()
    drawn = np.array([draw.drawn for draw in draws])
    assert drawn[:, ~remaining].all()
    assert drawn[:, nearest].all()
    # 60 draws of 270 images: 4050 of 16200 expected, with a standard deviation of 55.
    assert abs(drawn[:, remaining & ~nearest].sum() - 4050) < 4 * 55
    assert np.ptp(drawn[:, remaining & ~nearest].mean(0)) > 0.1  # other seeds draw other images


def test_where_an_attack_could_not_begin_the_image_is_drawn():
    loss = np.linspace(-2, -1, 20).astype(np.float32)
    loss[[3, 5]] = np.nan, -np.inf
    sample = PLAN.draw(loss, np.ones(20, bool), 0, places(0, 20))
    assert np.flatnonzero(sample.probability == 1).tolist() == [3, 5]


@pytest.mark.once
def test_a_number_belongs_to_an_image_wherever_it_is_met():
    plan = SamplingPlan({"cheap": "costly"}, 0.0, 0.3)
    loss, remaining = np.zeros(50, np.float32), np.ones(50, bool)
    whole = plan.draw(loss, remaining, 7, places(100, 50))
    parts = [
        plan.draw(loss[:20], remaining[:20], 7, places(100, 20)),
        plan.draw(loss[20:], remaining[20:], 7, places(120, 30)),
    ]
    joined = Sample.concatenate(parts)
    np.testing.assert_array_equal(joined.drawn, whole.drawn)
    assert 0 < whole.drawn.sum() < 50
    again = Sample.from_arrays(joined.arrays())
    assert again.after == "cheap"
    np.testing.assert_array_equal(again.probability, joined.probability)
    assert Sample.from_arrays({}) is None


def test_estimate_counts_what_is_in_doubt():
    # Two broken by cheap attacks, one of two certain ones broken; six in doubt: three drawn, one of those broken.
    probability = np.array([1, 1, 1, 1, *[0.5] * 6], np.float32)
    drawn = np.array([1, 1, 1, 1, 1, 1, 1, 0, 0, 0], bool)
    unbroken = np.array([0, 0, 0, 1, 0, 1, 1, 1, 1, 1], bool)
    sample = Sample("cheap", probability, drawn)
    assert sample.estimate(unbroken) == Estimate(n=10, surely=1, in_doubt=6, drawn=3, lost=1)


def test_of_several_threat_models_an_image_surely_broken_under_one_is_in_no_doubt():
    first = Sample("cheap", np.array([1, 0.5, 0.5, 0.5], np.float32), np.array([1, 1, 0, 1], bool))
    second = Sample("cheap", np.array([1, 1, 1, 0.5], np.float32), np.array([1, 1, 1, 1], bool))
    unbroken = [np.array([1, 1, 1, 0], bool), np.array([1, 1, 0, 1], bool)]
    union = Sample.of_all([first, second], unbroken)
    np.testing.assert_array_equal(union.probability, np.array([1, 0.5, 1, 0.5], np.float32))
    np.testing.assert_array_equal(union.drawn, [True, True, True, True])
    # One sure, one in doubt that stands, one surely broken, one in doubt that fell.
    assert union.estimate(np.all(unbroken, axis=0)) == Estimate(n=4, surely=1, in_doubt=2, drawn=2, lost=1)


@pytest.mark.once
def test_estimates_have_no_bias_and_their_intervals_hold_for_flips_of_any_kind():
    rng = np.random.default_rng(0)
    loss, remaining = rng.normal(size=600).astype(np.float32), np.arange(600) < 500
    far = np.argsort(-loss[:500])
    patterns = {
        "none": [],
        "near": far[:20],
        "far, as where gradients are hidden": far[-40:],
        "anywhere": rng.permutation(500)[:120],
    }
    draws = [PLAN.draw(loss, remaining, seed, places(0, 600)) for seed in range(200)]
    for what, broken in patterns.items():
        robust = remaining.copy()
        robust[broken] = False
        found = [sample.estimate(np.where(sample.drawn, robust, remaining)) for sample in draws]
        values, ends = np.array([each.value for each in found]), np.array([each.interval for each in found])
        truth = robust.mean()
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(200) + 1e-9, what
        # At 95 % fewer than 93 % of 200 happen once in ten; these are a little better than that.
        assert ((ends[:, 0] <= truth + 1e-9) & (truth - 1e-9 <= ends[:, 1])).mean() >= 0.93, what
