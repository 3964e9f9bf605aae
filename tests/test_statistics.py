import numpy as np
import pytest
from scipy.stats import binomtest, hypergeom, ttest_1samp

from keras_robust.statistics import (
    Estimate,
    OverSeeds,
    Paired,
    Proportion,
    optimality,
    student_interval,
    wilson_interval,
)

pytestmark = pytest.mark.once


@pytest.mark.parametrize(("successes", "n"), [(0, 100), (100, 100), (1, 7), (137, 200)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_interval_is_that_of_scipy(successes, n, confidence):
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    np.testing.assert_allclose(wilson_interval(successes, n, confidence), expected, atol=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_interval_of_nothing(successes, n):
    with pytest.raises(ValueError, match=f"received {successes} of {n}"):
        wilson_interval(successes, n)


def test_proportion():
    share = Proportion.of(np.array([True, False, True, True]))
    assert (share.successes, share.n, share.value) == (3, 4, 0.75)
    assert str(share) == "75.0 % (30-95)"


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 5), (3, 12), (40, 11), (700, 600)])
def test_mcnemar_is_the_binomial_test_on_the_images_that_one_alone_gets_right(first, second):
    trials = first + second
    expected = binomtest(first, trials).pvalue if trials else 1.0
    np.testing.assert_allclose(Paired(5000, first, second).p_value, expected, rtol=1e-9)


def test_pairs_are_counted():
    first = np.array([True, True, True, False, False])
    second = np.array([True, False, False, True, False])
    paired = Paired.of(first, second)
    assert (paired.n, paired.only_first, paired.only_second, paired.difference) == (5, 2, 1, -0.2)
    with pytest.raises(ValueError, match=r"received \(5,\) and \(4,\)"):
        Paired.of(first, second[1:])


def test_interval_of_a_difference():
    # Agresti, Categorical Data Analysis, section 10.1: 150 and 86 of 1600 voters changed their minds; (0.021, 0.059).
    low, high = Paired(1600, 86, 150).interval
    assert (round(low, 3), round(high, 3)) == (0.021, 0.059)
    low, high = Paired(10, 10, 0).interval
    assert -1 <= low < high < 0


def test_optimality_is_the_share_of_the_area_above_the_envelope():
    rng = np.random.default_rng(0)
    nearest = np.where(rng.random(200) < 0.2, 0.0, rng.gamma(2.0, size=200))
    attack = np.where(nearest > 0, nearest * rng.uniform(1.0, 1.5, 200), 0.0)
    attack[7] = np.inf
    radii = np.linspace(0, nearest.max(), 20001)

    def area(distances):
        return np.mean([(distances > radius).mean() for radius in radii])

    clean = (nearest > 0).mean()
    expected = 1 - (area(attack) - area(nearest)) / (clean - area(nearest))
    assert optimality(attack, nearest) == pytest.approx(expected, abs=1e-3)
    assert optimality(nearest, nearest) == 1.0
    assert optimality(np.where(nearest > 0, np.inf, 0.0), nearest) == pytest.approx(0.0)


def test_optimality_needs_an_envelope():
    with pytest.raises(ValueError, match="one shape"):
        optimality(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="no area to compare"):
        optimality(np.ones(3), np.full(3, np.inf))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_student_interval_is_that_of_scipy(n):
    values = np.random.default_rng(n).normal(size=n).tolist()
    expected = ttest_1samp(values, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose(student_interval(values), expected, rtol=1e-3)


def test_student_interval_of_one_number():
    with pytest.raises(ValueError, match="two to five numbers; received 1"):
        student_interval([0.1])


def test_shares_over_seeds():
    shares = OverSeeds((0.25, 0.125, 0.375))
    assert (shares.value, shares.interval) == (0.25, (0.125, 0.375))
    assert str(shares) == "25.0 (25.0, 12.5, 37.5)"
    assert str(OverSeeds((0.5,))) == "50.0"


@pytest.mark.parametrize(("in_doubt", "drawn"), [(30, 8), (60, 25), (100, 10)])
def test_interval_of_an_estimate_holds_however_many_are_lost(in_doubt, drawn):
    least = 1.0
    for total in range(in_doubt + 1):
        lost = np.arange(max(0, drawn - in_doubt + total), min(drawn, total) + 1)
        chances = hypergeom(in_doubt, total, drawn).pmf(lost)
        ends = np.array([Estimate(in_doubt, 0, in_doubt, drawn, int(each)).interval for each in lost])
        share = (in_doubt - total) / in_doubt
        least = min(least, chances[(ends[:, 0] <= share + 1e-9) & (share - 1e-9 <= ends[:, 1])].sum())
    assert 0.95 <= least < 0.98


def test_interval_of_an_estimate_when_nothing_is_lost():
    # The most that can be lost so that a sample of 100 of 1000 holds none of it with more than 4 %, by hand.
    most = max(total for total in range(901) if hypergeom(1000, total, 100).pmf(0) > 0.04)
    estimate = Estimate(n=1000, surely=0, in_doubt=1000, drawn=100, lost=0)
    np.testing.assert_allclose(estimate.interval, (1 - most / 1000, 1.0))
    assert 25 < most < 35  # near 3 of 100


def test_estimate_of_what_was_seen_whole_or_not_at_all():
    assert Estimate(n=10, surely=2, in_doubt=5, drawn=5, lost=1).interval == (0.6, 0.6)
    nothing = Estimate(n=10, surely=2, in_doubt=5, drawn=0, lost=0)
    assert (nothing.value, nothing.interval) == (0.7, (0.2, 0.7))
    assert Estimate(n=10, surely=2, in_doubt=0, drawn=0, lost=0).interval == (0.2, 0.2)
    third = Estimate(n=10, surely=2, in_doubt=6, drawn=3, lost=1)
    np.testing.assert_allclose(third.value, 0.6)
    assert str(third).startswith("~60.0 % (")


@pytest.mark.parametrize("counts", [(10, 5, 6, 3, 0), (10, 2, 5, 6, 0), (10, 2, 5, 3, 4), (0, 0, 0, 0, 0)])
def test_counts_of_an_estimate_must_fit(counts):
    with pytest.raises(ValueError, match="must"):
        Estimate(*counts)
