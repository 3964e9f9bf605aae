"""Statistics of accuracies: intervals, and tests of whether two of them differ."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Any

import numpy as np

RESAMPLES = 1000  # of a bootstrap


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a proportion by the score method (Wilson 1927), which also holds near 0 and 1.

    Example:
        >>> wilson_interval(0, 100)
        (0.0, 0.036...)
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes must lie in [0, n] and n be at least 1; received {successes} of {n}.")
    z = NormalDist().inv_cdf(0.5 + 0.5 * confidence)
    share, weight = successes / n, z * z / n
    centre = share + weight / 2
    spread = z * math.sqrt(share * (1 - share) / n + weight / n / 4)
    # Rounding can leave the ends a little outside [0, 1] at 0 and at n successes.
    return max(0.0, (centre - spread) / (1 + weight)), min(1.0, (centre + spread) / (1 + weight))


# Of Student's distribution, by degrees of freedom: 97.5 %.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}


def student_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of two to five numbers, such as gains over seeds, by Student's t (1908).

    Raises:
        ValueError: another number of them.

    Example:
        >>> [round(bound, 3) for bound in student_interval([0.01, 0.02, 0.03])]
        [-0.005, 0.045]
    """
    if len(values) - 1 not in STUDENT:
        raise ValueError(f"values must be two to five numbers; received {len(values)}.")
    mean, spread = fmean(values), STUDENT[len(values) - 1] * stdev(values) / math.sqrt(len(values))
    return mean - spread, mean + spread


@dataclass(frozen=True)
class OverSeeds:
    """A share, once per seed: its mean, and from the least to the most."""

    values: tuple[float, ...]

    is_estimate = False

    @property
    def value(self) -> float:
        return fmean(self.values)

    @property
    def interval(self) -> tuple[float, float]:
        return min(self.values), max(self.values)

    def __str__(self) -> str:
        each = ", ".join(f"{100 * value:.1f}" for value in self.values)
        return f"{100 * self.value:.1f}" + (f" ({each})" if len(self.values) > 1 else "")


@dataclass(frozen=True)
class Proportion:
    """A share of images, with its 95 % Wilson interval: `successes` of `n`."""

    successes: int
    n: int

    @classmethod
    def of(cls, correct: np.ndarray) -> "Proportion":
        return cls(int(np.sum(correct)), len(correct))

    @property
    def value(self) -> float:
        return self.successes / self.n

    @property
    def interval(self) -> Any:
        return wilson_interval(self.successes, self.n)

    is_estimate = False

    @property
    def percent(self) -> str:
        """The share alone, as "53.2 %"."""
        return f"{100 * self.value:.1f} %"

    @property
    def ends(self) -> str:
        """The ends of the interval in percent, as "46-60"."""
        low, high = self.interval
        return f"{100 * low:.0f}-{100 * high:.0f}"

    def __str__(self) -> Any:
        return f"{self.percent} ({self.ends})"


# Of the 5 % that the interval of an estimate may miss. Most samples hold no image that breaks: then the lower end of
# what was missed is 0 for sure, and the room is better spent on the upper one.
MISSED_BELOW, MISSED_ABOVE = 0.01, 0.04


@dataclass(frozen=True)
class Estimate:
    """A share of images, of some of which it is not known whether they count: those that a sample left out.

    All images count at first. Of `surely` + `in_doubt` images that do after a look at all, those in doubt are looked at
    again where a sample drew them, each with the same probability and whatever the others did; `lost` of them then
    count no more. The rest is estimated to lose the same share (the difference estimator: Sarndal, Swensson & Wretman
    1992, "Model assisted survey sampling", section 6.3).

    The 95 % interval is exact: given how many were drawn, `lost` has a hypergeometric distribution, whatever the images
    are and however few are lost. It is one for these very images, not for others that could have been drawn instead.

    Attributes:
        n: number of all images.
        surely: images that are known to count.
        in_doubt: images that a sample was drawn of.
        drawn: the size of the sample.
        lost: images of the sample that do not count after all.

    Example:
        >>> str(Estimate(n=5000, surely=200, in_doubt=2400, drawn=240, lost=0))
        '~52.0 % (51.4-52.0)'
    """

    n: int
    surely: int
    in_doubt: int
    drawn: int
    lost: int

    is_estimate = True

    def __post_init__(self) -> None:
        if not (0 <= self.lost <= self.drawn <= self.in_doubt and 0 <= self.surely <= self.n - self.in_doubt):
            raise ValueError(f"lost <= drawn <= in_doubt <= n - surely must hold; received {self}.")
        if self.n < 1:
            raise ValueError(f"n must be at least 1; received {self.n}.")

    @property
    def value(self) -> float:
        lost = self.in_doubt * self.lost / self.drawn if self.drawn else 0.0
        return (self.surely + self.in_doubt - lost) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        least, most = self._lost_of_all()
        kept = self.surely + self.in_doubt
        return (kept - most) / self.n, (kept - least) / self.n

    @property
    def percent(self) -> str:
        """The share alone, marked as an estimate: "~53.2 %"."""
        return f"~{100 * self.value:.1f} %"

    @property
    def ends(self) -> str:
        """The ends of the interval in percent, as "52.6-53.4"."""
        low, high = self.interval
        return f"{100 * low:.1f}-{100 * high:.1f}"

    def __str__(self) -> str:
        return f"{self.percent} ({self.ends})"

    def _lost_of_all(self) -> tuple[int, int]:
        """The fewest and the most of the images in doubt that may be lost, given those of the sample."""
        # With more to lose fewer losses become ever less likely: both ends by bisection.
        first, last = self.lost, self.lost + self.in_doubt - self.drawn
        most = _last(first, last, lambda total: self._at_most(self.lost, total) > MISSED_ABOVE)
        few_enough = _last(first - 1, last, lambda total: 1 - self._at_most(self.lost - 1, total) <= MISSED_BELOW)
        return min(few_enough + 1, most), most

    def _at_most(self, lost: int, total: int) -> float:
        """The probability that a sample holds at most `lost` of `total` images to lose."""
        kept = self.in_doubt - total
        ways = _log_choose(self.in_doubt, self.drawn)
        possible = range(max(0, self.drawn - kept), min(lost, total, self.drawn) + 1)
        logs = (_log_choose(total, k) + _log_choose(kept, self.drawn - k) - ways for k in possible)
        return math.fsum(map(math.exp, logs))


def _last(first: int, last: int, holds: Callable[[int], bool]) -> int:
    """The last number for which something holds that holds for `first` and, once it does not, never again."""
    while first < last:
        middle = (first + last + 1) // 2
        first, last = (middle, last) if holds(middle) else (first, middle - 1)
    return first


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


@dataclass(frozen=True)
class Paired:
    """Two models on the same images.

    Attributes:
        n: number of images.
        only_first, only_second: images that one of them alone classifies correctly.
    """

    n: int
    only_first: int
    only_second: int

    @classmethod
    def of(cls, first: Any, second: Any) -> Any:
        """From two boolean arrays (n,): which images each classifies correctly."""
        first, second = np.asarray(first, bool), np.asarray(second, bool)
        if first.shape != second.shape or first.ndim != 1 or not len(first):
            raise ValueError(f"first and second must be of one shape (n,); received {first.shape} and {second.shape}.")
        return cls(len(first), int(np.sum(first & ~second)), int(np.sum(second & ~first)))

    @property
    def p_value(self) -> Any:
        """Two-sided exact test of McNemar 1947: are the images that only one gets right split evenly?"""
        trials = self.only_first + self.only_second
        fewer = min(self.only_first, self.only_second)
        tail = sum(math.comb(trials, k) for k in range(fewer + 1))
        return min(1.0, float(2 * tail / 2**trials)) if trials else 1.0

    @property
    def difference(self) -> Any:
        """Accuracy of the second minus that of the first."""
        return (self.only_second - self.only_first) / self.n

    @property
    def interval(self) -> Any:
        """95 % interval of the difference: Wald's with half an image added to each cell (Agresti & Min 2005)."""
        first, second, n = self.only_first + 0.5, self.only_second + 0.5, self.n + 2
        spread = NormalDist().inv_cdf(0.975) * math.sqrt(first + second - (first - second) ** 2 / n) / n
        centre = (second - first) / n
        return max(-1.0, centre - spread), min(1.0, centre + spread)


def optimality(distances: np.ndarray, nearest: np.ndarray) -> float:
    """How near an attack's robustness curve comes to the lower envelope of all attacks: 1 on it, 0 for no success.

    The area under the curve "share of images still classified correctly, by radius" up to the envelope's largest
    distance is the mean of the distances cut off there (Cina et al. 2025, "AttackBench: evaluating gradient-based
    attacks for adversarial examples", AAAI, section 3, where the areas are integrated by trapezoids).

    Args:
        distances: of the attack, (n,); 0 where the image needs none, inf where nothing was found.
        nearest: the smallest distance that any attack found, (n,).

    Raises:
        ValueError: other shapes, or the envelope knows no adversarial image.

    Example:
        >>> optimality(np.array([0.0, 2.0, np.inf]), np.array([0.0, 1.0, 3.0]))
        0.5
    """
    distances, nearest = np.asarray(distances, float), np.asarray(nearest, float)
    if distances.shape != nearest.shape or nearest.ndim != 1:
        raise ValueError(
            f"distances and nearest must be of one shape (n,); received {distances.shape} and {nearest.shape}."
        )
    end = nearest[np.isfinite(nearest)].max(initial=0.0)
    area, least = (float(np.minimum(each, end).mean()) for each in (distances, nearest))
    most = float((nearest > 0).mean() * end)
    if most <= least:
        raise ValueError("nearest must have two distances above 0 that differ: there is no area to compare.")
    return (most - area) / (most - least)


@dataclass(frozen=True)
class Measured:
    """A figure of some images that is no share of them, with its 95 % bootstrap interval."""

    value: float
    interval: tuple[float, float]

    # What no test was made of.
    p_value = None

    @classmethod
    def of(
        cls,
        figure: Callable[[np.ndarray], float],
        n: int,
        limits: tuple[float, float] = (-math.inf, math.inf),
        seed: int = 0,
    ) -> "Measured":
        """From a function of the images that are taken, with repetitions, of n.

        The basic interval (Davison & Hinkley 1997, "Bootstrap methods and their application", section 5.2): by as much
        as resampled figures lie above the figure, the figure may lie above the truth, so that a bias of the figure,
        such as that of the calibration error, is not counted twice. A bias as large as the spread would leave the
        figure outside: neither end is nearer to the figure than the resampled figures reach from their median.

        Args:
            figure: from places of images, int64 (n,), to a number.
            n: number of images.
            limits: between which the figure must lie.
            seed: of the resampling.

        Example:
            >>> values = np.arange(100.0)
            >>> Measured.of(lambda rows: values[rows].mean(), 100)
            Measured(value=49.5, interval=(44..., 55...))
        """
        rng = np.random.default_rng(seed)
        value = float(figure(np.arange(n)))
        resampled = [figure(rng.integers(0, n, n)) for _ in range(RESAMPLES)]
        low, median, high = np.quantile(resampled, [0.025, 0.5, 0.975])
        least, most = limits
        ends = value - (high - min(value, median)), value + (max(value, median) - low)
        return cls(value, (max(least, float(ends[0])), min(most, float(ends[1]))))

    @classmethod
    def mean(cls, values: np.ndarray, limits: tuple[float, float] = (-math.inf, math.inf)) -> "Measured":
        """The mean of a value of each image, (n,)."""
        values = np.asarray(values, np.float64)
        return cls.of(lambda rows: float(values[rows].mean()), len(values), limits)

    @property
    def difference(self) -> float:
        """The figure, where it is the difference of two."""
        return self.value
