"""Sections of a report on what else was asked for: corruptions, other images, calibration, attacks in 8 bits."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from keras_robust.evaluation import measures
from keras_robust.evaluation.corruptions import ALEXNET, LIMITS, SEVERITIES, VERSIONS
from keras_robust.evaluation.results import ImageSetResult, Report
from keras_robust.statistics import Measured, Proportion


@dataclass(frozen=True)
class Section:
    """A table with a heading and a sentence on how to read it; a row has as many cells as the header."""

    heading: str
    note: str
    header: list[str]
    rows: list[list[str]]

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows)]
        lines = ("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)) for row in (self.header, *self.rows))
        return "\n".join([self.heading, *(line.rstrip() for line in lines)])


def sections(report: Report) -> list[Section]:
    """The sections of what was asked for."""
    found = [section for each in report.image_sets if each.is_corrupted for section in _corruptions(report, each)]
    shifts = [each for each in report.image_sets if not each.is_corrupted]
    found += [_shifts(shifts)] if shifts else []
    found += [_calibration(report)] if report.settings.calibration else []
    return found + ([_eight_bit(report)] if report.settings.eight_bit else [])


def _corruptions(report: Report, result: ImageSetResult) -> Iterator[Section]:
    figures = measures.corruptions(report, result)
    note = f"Accuracy in % with 95 % intervals. The images: {result.settings.note}."
    if "mCE" in figures:
        note += " mCE and relative mCE are divided by AlexNet's errors: 100 % is as bad as AlexNet."
    header = ["corruption", *(f"severity {each}" for each in SEVERITIES), "mean"]
    rows = []
    correct = result.correct
    for name in ALEXNET:
        shares = {each: correct.get(f"{name}/{each}") for each in SEVERITIES}
        known = [each for each in shares.values() if each is not None]
        if known:
            cells = ["" if each is None else str(Proportion.of(each)) for each in shares.values()]
            mean = f"{100 * np.mean(known):.1f} %" if len(known) == len(SEVERITIES) else ""
            rows.append([name.replace("_", " "), *cells, mean])
    of_part = "" if len(correct) == len(VERSIONS) else f" of {len(correct)} of {len(VERSIONS)}"  # then no mCE
    heading = f"Common corruptions at {result.resolution} px"
    yield Section(heading, note, header, rows)
    yield Section(
        f"{heading}, in all",
        "Intervals: bootstrap over the images.",
        ["figure", "value (95 %)"],
        [[name + of_part, percent(Measured.mean(values, LIMITS[name]))] for name, values in figures.items()],
    )


def _shifts(results: list[ImageSetResult]) -> Section:
    rows = [
        [each.settings.name, str(each.resolution), str(len(each.label)), str(share), each.settings.note]
        for each in results
        for share in each.accuracies.values()
    ]
    header = ["images", "pixels", "number", "accuracy (95 %)", ""]
    return Section("Other images", "Accuracy without an attack.", header, rows)


def _calibration(report: Report) -> Section:
    rows = []
    for resolution in report.resolutions:
        for name, found in measures.calibrations(report, resolution):
            measured = found.measured()
            confidence = 100 * np.mean(found.certainty[:, 0], dtype=np.float64)
            accuracy = str(Proportion.of(found.correct))
            ece, brier = measured["ECE"], measured["Brier score"]
            low, high = brier.interval
            score = f"{brier.value:.3f} ({low:.3f}-{high:.3f})"
            rows.append([str(resolution), name, accuracy, f"{confidence:.1f} %", percent(ece), score])
    note = (
        "Expected calibration error in 15 bins of equal width, and Brier score, with bootstrap intervals. Under attack "
        "the images count as the attacks left them: those that none of them broke, unchanged. The attacks look for "
        "errors, not for confident ones."
    )
    header = ["pixels", "images", "accuracy (95 %)", "mean confidence", "ECE (95 %)", "Brier score (95 %)"]
    return Section("Calibration", note, header, rows)


def _eight_bit(report: Report) -> Section:
    label, rows = report.images.label, []
    for cell in report.results:
        for name, share in measures.survivors(cell, label).items():
            count = 0 if share is None else share.n
            rows.append([str(cell.resolution), str(cell.threat), name, str(count), "" if share is None else str(share)])
        if cell.threat.is_bounded:
            right = Proportion.of(measures.right_in_8_bits(cell, label))
            rows.append([str(cell.resolution), str(cell.threat), measures.STILL_RIGHT, "", str(right)])
    note = (
        "How many of the adversarial images that each attack found are misclassified still when they are rounded to 8 "
        "bits, as an image file holds them. Rounding may leave the ball by half a grey level. What is still right of "
        "all images is not the robust accuracy against an attacker who knows of the rounding: that attack is "
        "APGD(..., eight_bit=True)."
    )
    header = ["pixels", "threat model", "attack", "found", "left (95 %)"]
    return Section("Adversarial images in 8 bits", note, header, rows)


def percent(figure: Measured) -> str:
    """As "12.3 % (11.1-13.4)"."""
    low, high = figure.interval
    return f"{100 * figure.value:.1f} % ({100 * low:.1f}-{100 * high:.1f})"
