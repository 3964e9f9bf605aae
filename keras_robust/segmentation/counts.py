"""Figures of a segmentation, from each image's counts of pixels by class: accuracy, mean IoU, and their worst case."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_robust.dense_labels import IGNORED

RESAMPLES = 1000  # of the images, for an interval


@dataclass(frozen=True)
class PixelCounts:
    """What a model's answers to n images come to, of the pixels that count, by class.

    Attributes:
        right: pixels of each class that are answered so, int64 (n, classes).
        labelled: pixels of each class, int64 (n, classes).
        answered: pixels that are answered with each class, int64 (n, classes).
    """

    right: np.ndarray
    labelled: np.ndarray
    answered: np.ndarray

    @classmethod
    def of(cls, predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> "PixelCounts":
        """From class indices (n, height, width): -1 is an answer that is always wrong, and a label that does not count.

        Example:
            >>> counts = PixelCounts.of(np.array([[[0, 1, 1]]]), np.array([[[0, 0, -1]]]), 2)
            >>> counts.right, counts.labelled, counts.answered
            (array([[1, 0]]), array([[2, 0]]), array([[1, 1]]))
        """

        def count(classes: np.ndarray, where: np.ndarray) -> np.ndarray:
            rows = [np.bincount(each[at & (each >= 0)], minlength=num_classes) for each, at in zip(classes, where)]
            return np.array(rows, np.int64).reshape(len(classes), num_classes)

        counted = labels != IGNORED
        return cls(
            count(labels, counted & (predictions == labels)), count(labels, counted), count(predictions, counted)
        )

    @property
    def union(self) -> np.ndarray:
        """Pixels that are of a class, or answered so, (n, classes)."""
        return self.labelled + self.answered - self.right

    def iou(self) -> np.ndarray:
        """Intersection over union of each class over all images, (classes,); NaN for a class that there is not."""
        return _ratio(self.right.sum(0), self.union.sum(0))

    def mean_iou(self) -> float:
        """Mean over the classes that there are, in labels or answers."""
        return mean_iou(self.right.sum(0), self.union.sum(0))

    def pixel_accuracy(self) -> float:
        """Share of all pixels that is right."""
        return float(self.right.sum() / max(self.labelled.sum(), 1))

    def mean_image_accuracy(self) -> float:
        """Mean over the images of the share of their pixels that is right, of images with any that count."""
        return float(np.nanmean(_ratio(self.right.sum(1), self.labelled.sum(1))))

    def interval(self, figure: str, seed: int = 0) -> tuple[float, float]:
        """95 % interval of `figure`, "mean_iou" or "pixel_accuracy", by drawing the images anew (Efron 1979)."""
        rng, n = np.random.default_rng(seed), len(self.right)
        times = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)
        right, union, labelled = times @ self.right, times @ self.union, times @ self.labelled
        if figure == "mean_iou":
            values = np.array([mean_iou(a, b) for a, b in zip(right, union)])
        else:
            values = right.sum(1) / np.maximum(labelled.sum(1), 1)
        low, high = np.quantile(values, [0.025, 0.975])
        return float(low), float(high)

    def __getitem__(self, rows: Any) -> "PixelCounts":
        return PixelCounts(self.right[rows], self.labelled[rows], self.answered[rows])


def joined(parts: list[PixelCounts]) -> PixelCounts:
    """The counts of the images of all parts, in their order."""
    return PixelCounts(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("right", "labelled", "answered"))
    )


def chosen(candidates: list[PixelCounts], choice: np.ndarray) -> PixelCounts:
    """Of each image the counts of one candidate, by its place in the list, int (n,)."""
    rows = np.arange(len(choice))
    parts = {
        name: np.stack([getattr(each, name) for each in candidates])[choice, rows]
        for name in ("right", "labelled", "answered")
    }
    return PixelCounts(**parts)


def fewest_right(candidates: list[PixelCounts]) -> np.ndarray:
    """The worst case for pixel accuracy: the candidate with the fewest right pixels of each image, int (n,)."""
    return np.argmin([each.right.sum(1) for each in candidates], axis=0)


def lowest_mean_iou(candidates: list[PixelCounts]) -> np.ndarray:
    """A worst case for the mean IoU of all images together: the candidate of each image, int (n,).

    Which are chosen for one image weighs on what the others do to the ratios. From the candidate that is worst for all
    at once on, each image in turn takes the one that lowers the mean IoU most, again and again until no image changes
    (Croce, Singh & Hein 2024, section 3.4, in rounds).
    """
    right, union = (np.stack([getattr(each, name) for each in candidates]) for name in ("right", "union"))
    n = right.shape[1]
    choice = np.full(n, np.argmin([each.mean_iou() for each in candidates]))
    total_right, total_union = right[choice, np.arange(n)].sum(0), union[choice, np.arange(n)].sum(0)
    changed = True
    while changed:
        changed = False
        for image in range(n):
            rest_right = total_right - right[choice[image], image]
            rest_union = total_union - union[choice[image], image]
            values = [mean_iou(rest_right + a, rest_union + b) for a, b in zip(right[:, image], union[:, image])]
            best = int(np.argmin(values))
            # Strictly: each change lowers the figure, so that there is an end.
            if values[best] < values[choice[image]]:
                choice[image], changed = best, True
            total_right = rest_right + right[choice[image], image]
            total_union = rest_union + union[choice[image], image]
    return choice


def mean_iou(right: np.ndarray, union: np.ndarray) -> float:
    """Mean of right / union over the classes (classes,) with any pixel; 0 without any."""
    there = union > 0
    return float((right[there] / union[there]).mean()) if there.any() else 0.0


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
