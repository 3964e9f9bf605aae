"""Calibration: whether a model is right as often as it says."""

from dataclasses import dataclass

import numpy as np

from keras_robust.statistics import Measured, Proportion

BINS = 15


def certainty(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How sure a model is of its answers, and how far its probabilities are from the truth.

    Args:
        logits: (n, classes).
        labels: (n,).

    Returns:
        float32 (n, 2): the largest probability of the softmax, and the Brier score of each image, the sum over the
        classes of the squares of probability minus truth (Brier 1950), 0 to 2. Where a logit is not finite, 1 and 2,
        the worst.
    """
    logits = np.asarray(logits, np.float64)
    finite = np.isfinite(logits).all(1)
    logits = np.where(finite[:, None], logits, 0.0)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = odds / odds.sum(1, keepdims=True)
    truth = np.eye(logits.shape[1])[labels]
    found = np.stack([probabilities.max(1), ((probabilities - truth) ** 2).sum(1)], axis=1)
    return np.where(finite[:, None], found, [1.0, 2.0]).astype(np.float32)


@dataclass(frozen=True)
class Calibration:
    """Confidence and correctness of a model's answers, image by image.

    Attributes:
        certainty: see there.
        correct: whether each answer is right, booleans (n,).

    Example:
        >>> correct = np.array([True, True, False, False])
        >>> sure = kr.evaluation.calibration.Calibration(np.array([[0.75, 0.5]] * 4), correct)
        >>> sure.ece, sure.brier
        (0.25, 0.5)
    """

    certainty: np.ndarray
    correct: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error (Naeini et al. 2015; Guo et al. 2017): 15 bins of equal width, (0, 1/15] first."""
        return self.ece_of(np.arange(len(self.correct)))

    @property
    def brier(self) -> float:
        """The mean Brier score, 0 to 2."""
        return float(np.mean(self.certainty[:, 1], dtype=np.float64))

    def ece_of(self, rows: np.ndarray) -> float:
        """The calibration error of some of the images, given by their places, with repetitions."""
        confidence = np.asarray(self.certainty[rows, 0], np.float64)
        gaps = np.bincount(_bins(confidence), confidence - self.correct[rows], BINS)
        return float(np.abs(gaps).sum() / len(rows))

    def measured(self) -> dict[str, Measured]:
        """ "ECE" and "Brier score" with their intervals."""
        return {
            "ECE": Measured.of(self.ece_of, len(self.correct), (0.0, 1.0)),
            "Brier score": Measured.mean(self.certainty[:, 1], (0.0, 2.0)),
        }

    @property
    def reliability(self) -> list[tuple[float, Proportion]]:
        """Mean confidence and accuracy of each bin that holds images, from the least sure on."""
        confidence = np.asarray(self.certainty[:, 0], np.float64)
        bins = _bins(confidence)
        return [
            (float(confidence[bins == each].mean()), Proportion.of(self.correct[bins == each]))
            for each in np.unique(bins)
        ]


def _bins(confidence: np.ndarray) -> np.ndarray:
    """The bin of each confidence; a bin holds its upper end."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
