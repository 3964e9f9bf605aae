"""Comparison of two reports image by image: the difference of every figure that both have."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from keras_robust.evaluation import measures
from keras_robust.evaluation.calibration import Calibration
from keras_robust.evaluation.results import ALL, ImageSetResult, Report
from keras_robust.statistics import Measured, Paired
from keras_robust.threat import ThreatModel


@dataclass(frozen=True)
class Difference:
    """How much a figure of the second of two models is above that of the first, on the same images.

    Attributes:
        resolution: in pixels.
        label: of the figure.
        paired: of images that are right or wrong `Paired`, by McNemar's exact test; of other figures `Measured`.
        unit: what a hundredth of the figure is called, "points" of percent.
    """

    resolution: int
    label: str
    paired: Paired | Measured
    unit: str = "points"

    @property
    def text(self) -> str:
        """As "+3.0 points (+1.2 to +4.8)"."""
        low, high = (100 * end for end in self.paired.interval)
        return f"{100 * self.paired.difference:+.1f} {self.unit} ({low:+.1f} to {high:+.1f})"

    @property
    def p_value(self) -> str:
        """As "0.012" or "< 0.001"; "" of what no test was made of."""
        p = self.paired.p_value
        return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"

    @property
    def only(self) -> tuple[str, str]:
        """Images that the second and the first alone get right; "" of figures that are not counted so."""
        if isinstance(self.paired, Measured):
            return "", ""
        return str(self.paired.only_second), str(self.paired.only_first)


def differences(first: Report, second: Report) -> list[Difference]:
    """All differences between two reports on the same images, at the resolutions that both have.

    What was found under attack is compared where both models met the same attacks: see `attacked_otherwise`.

    Of images that are right or wrong (without attack, under each threat model, under all of them) by McNemar's exact
    test; so, too, of other images, and of those still right once attacks' images are rounded to 8 bits. Of curves the
    mean accuracy over all radii, of corruptions and calibration their figures, by the bootstrap over images.
    """
    found: list[Difference] = []
    for resolution in (resolution for resolution in first.resolutions if resolution in second.resolutions):
        for label, flags in _binary(first, second, resolution):
            found.append(Difference(resolution, label, Paired.of(*flags)))
        found += [
            *_curves(first, second, resolution),
            *_corruptions(first, second, resolution),
            *_calibrations(first, second, resolution),
        ]
    return found


def attacked_otherwise(first: Report, second: Report) -> list[str]:
    """Threat models and curves that both have, but of other attacks, so that `differences` leaves them out."""
    threats = [threat for threat in _threats(first, second) if not first.met_same_attacks(second, [threat])]
    norms = [norm for norm in _curved(first, second) if not _same_curve(first, second, norm)]
    return [*(str(threat) for threat in threats if threat.is_bounded), *(f"{norm} curve" for norm in norms)]


def _threats(first: Report, second: Report) -> list[ThreatModel]:
    """The threat models of both, with a radius or without."""
    ours, theirs = (dict.fromkeys(result.threat for result in each.results) for each in (first, second))
    return [threat for threat in ours if threat in theirs]


def _curved(first: Report, second: Report) -> list[str]:
    """The norms that both have a curve of."""
    return [norm for norm in first.norms if first.has_curve(norm) and second.has_curve(norm)]


def _binary(first: Report, second: Report, resolution: int) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Which images each of two models gets right, by what they meet."""
    both = (first, second)
    yield "clean", [each[each.threats[0], resolution].misclassified_at > 0 for each in both]
    others = attacked_otherwise(first, second)
    threats = [threat for threat in _threats(first, second) if threat.is_bounded and str(threat) not in others]
    for threat in threats:
        yield str(threat), [each[threat, resolution].is_robust for each in both]
    if len(threats) > 1 and first.threats == second.threats == threats:
        yield ALL, [each.robust_to_all(resolution) for each in both]
    if all(each.settings.eight_bit for each in both):
        for threat in threats:
            yield (
                f"{threat}, {measures.STILL_RIGHT}",
                [measures.right_in_8_bits(each[threat, resolution], each.images.label) for each in both],
            )
    for ours, theirs in _sets(first, second, resolution):
        if not ours.is_corrupted:
            yield ours.settings.name, [next(iter(each.correct.values())) for each in (ours, theirs)]


def _curves(first: Report, second: Report, resolution: int) -> Iterator[Difference]:
    """The mean accuracies over all radii up to the largest that is needed for either model."""
    others = attacked_otherwise(first, second)
    for norm in (norm for norm in _curved(first, second) if f"{norm} curve" not in others):
        curves = [each.curve(norm, resolution) for each in (first, second)]
        end = max(curve.end for curve in curves)
        if end:
            # The area under a curve up to a radius is the mean of the distances cut off there.
            ours, theirs = (np.minimum(curve.distances, end) / end for curve in curves)
            yield Difference(resolution, f"{norm} curve to {end:.3g}", Measured.mean(theirs - ours))


def _same_curve(first: Report, second: Report, norm: str) -> bool:
    """Whether the same attacks looked for the nearest images, those in balls of this norm among them."""
    ours, theirs = (
        {result.threat for result in each.results if result.threat.norm == norm} for each in (first, second)
    )
    return ours == theirs and first.met_same_attacks(second, list(ours))


def _corruptions(first: Report, second: Report, resolution: int) -> Iterator[Difference]:
    for ours, theirs in _sets(first, second, resolution):
        if ours.is_corrupted:
            before, after = measures.corruptions(first, ours), measures.corruptions(second, theirs)
            for name in before:
                yield Difference(resolution, f"corruptions, {name}", Measured.mean(after[name] - before[name]))


def _calibrations(first: Report, second: Report, resolution: int) -> Iterator[Difference]:
    """Calibration errors and Brier scores without attack and under the threat models of both."""
    if not (first.settings.calibration and second.settings.calibration):
        return
    before, after = (dict(measures.calibrations(each, resolution)) for each in (first, second))
    others = attacked_otherwise(first, second)
    for name in (name for name in before if name in after and name not in others):
        ours, theirs = before[name], after[name]
        error = Measured.of(partial(_more, ours, theirs), first.n_examples)
        yield Difference(resolution, f"ECE, {name}", error)
        brier = Measured.mean(theirs.certainty[:, 1] - ours.certainty[:, 1])
        yield Difference(resolution, f"Brier score, {name}", brier, "hundredths")


def _more(ours: Calibration, theirs: Calibration, rows: np.ndarray) -> float:
    return theirs.ece_of(rows) - ours.ece_of(rows)


def _sets(first: Report, second: Report, resolution: int) -> Iterator[tuple[ImageSetResult, ImageSetResult]]:
    """Results on the same other images in the same versions, made alike."""
    for ours in first.image_sets:
        for theirs in second.image_sets:
            same = ours.settings == theirs.settings and np.array_equal(ours.digest, theirs.digest)
            if same and ours.resolution == theirs.resolution == resolution:
                yield ours, theirs
