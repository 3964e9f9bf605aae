"""What a report tells besides robust accuracy: calibration, corruptions, and what is left of attacks in 8 bits."""

from collections.abc import Iterator

import numpy as np

from keras_robust.attacks import AttackResult
from keras_robust.attacks.result import CLEAN
from keras_robust.evaluation.calibration import Calibration
from keras_robust.evaluation.corruptions import scores
from keras_robust.evaluation.results import ImageSetResult, Report
from keras_robust.statistics import Proportion

ALL_ATTACKS = "all attacks"
STILL_RIGHT = "still right after rounding (no attack knew of it)"


def calibrations(report: Report, resolution: int) -> Iterator[tuple[str, Calibration]]:
    """The model's calibration without attack ("clean") and under each threat model with a radius.

    Under attack the images count as the attacks left them: those that none of them broke, unchanged.

    Raises:
        ValueError: the evaluation was not asked for it.
    """
    label, first = report.images.label, report[report.threats[0], resolution]
    yield CLEAN, Calibration(_asked_for("calibration", first.certainty), first.prediction == label)
    for cell in (report[threat, resolution] for threat in report.threats if threat.is_bounded):
        certainty = _asked_for("calibration", cell.adversarial_certainty)
        yield str(cell.threat), Calibration(certainty, cell.adversarial_prediction == label)


def corruptions(report: Report, result: ImageSetResult) -> dict[str, np.ndarray]:
    """What each image contributes to the figures of `corruptions.scores`, (n,) each."""
    clean = report[report.threats[0], result.resolution].misclassified_at > 0
    return scores(result.correct, clean, report.settings.images.imagenet)


def survivors(cell: AttackResult, label: np.ndarray) -> dict[str, Proportion | None]:
    """Attack -> the share of its successes that are misclassified still once rounded to 8 bits; None of no successes.

    Without a bound on the perturbation the nearest of all attacks' images is kept, which need not be that of the attack
    that succeeded first: there one share for all attacks.

    Raises:
        ValueError: the evaluation was not asked for it.
    """
    left = _asked_for("eight_bit", cell.rounded_prediction) != label
    if not cell.threat.is_bounded:
        broken = (cell.misclassified_at > 0) & ~cell.is_unbroken
        return {ALL_ATTACKS: Proportion.of(left[broken]) if broken.any() else None}
    found: dict[str, Proportion | None] = {}
    for place, name in enumerate(cell.stages[1:], start=1):
        broken = cell.misclassified_at == place
        found[name] = Proportion.of(left[broken]) if broken.any() else None
    return found


def right_in_8_bits(cell: AttackResult, label: np.ndarray) -> np.ndarray:
    """Images that are right, and right still where the image that an attack found is rounded to 8 bits, booleans (n,).

    No attack knew of the rounding, nor is another one tried where it undoes the first: they are more than those that
    are robust in 8 bits.

    Raises:
        ValueError: the evaluation was not asked for it.
    """
    return (cell.misclassified_at > 0) & (_asked_for("eight_bit", cell.rounded_prediction) == label)


def _asked_for(name: str, values: np.ndarray | None) -> np.ndarray:
    if values is None:
        raise ValueError(f"report must be of an evaluation with {name}=True.")
    return values
