"""Mean IoU and its worst case beside plain loops and brute force."""

import itertools

import numpy as np
import pytest

from keras_robust.segmentation.counts import PixelCounts, chosen, fewest_right, joined, lowest_mean_iou

CLASSES = 4


def masks(seed, n=5):
    """Labels (n, 6, 7) of which some do not count, and three models' answers to each image."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, CLASSES - 1, (n, 6, 7))  # without the last class
    answers = [
        np.where(rng.random(labels.shape) < share, labels, rng.integers(0, CLASSES, labels.shape))
        for share in (0.5, 0.45, 0.4)
    ]
    return labels, [np.maximum(each, 0) for each in answers]


def plain_mean_iou(predictions, labels):
    """Pixel by pixel, class by class."""
    ious = []
    for k in range(CLASSES):
        both = either = 0
        for p, y in zip(predictions.ravel(), labels.ravel()):
            if y >= 0:
                both += p == k and y == k
                either += p == k or y == k
        if either:
            ious.append(both / either)
    return sum(ious) / len(ious)


def test_figures_beside_plain_loops():
    labels, (predictions, *_) = masks(0)
    counts = PixelCounts.of(predictions, labels, CLASSES)
    assert counts.mean_iou() == pytest.approx(plain_mean_iou(predictions, labels))
    counted = labels >= 0
    assert counts.pixel_accuracy() == pytest.approx((predictions == labels)[counted].mean())
    by_image = [(p == y)[y >= 0].mean() for p, y in zip(predictions, labels)]
    assert counts.mean_image_accuracy() == pytest.approx(np.mean(by_image))
    again = joined([counts[:2], counts[2:]])
    assert again.mean_iou() == counts.mean_iou()
    assert again.interval("mean_iou") == counts.interval("mean_iou")
    low, high = counts.interval("pixel_accuracy")
    assert low < counts.pixel_accuracy() < high


def test_a_class_that_is_nowhere_does_not_count():
    labels, predictions = np.zeros((1, 2, 2), int), np.array([[[0, 0], [0, 1]]])
    counts = PixelCounts.of(predictions, labels, CLASSES)
    assert counts.mean_iou() == pytest.approx((3 / 4 + 0) / 2)
    assert np.isnan(counts.iou()[2:]).all()
    unanswered = PixelCounts.of(np.full((1, 2, 2), -1), labels, CLASSES)
    assert unanswered.mean_iou() == 0
    assert unanswered.pixel_accuracy() == 0


@pytest.mark.parametrize("seed", range(6))
def test_worst_case_beside_brute_force(seed):
    labels, answers = masks(seed)
    candidates = [PixelCounts.of(each, labels, CLASSES) for each in answers]
    everything = {
        choice: plain_mean_iou(np.stack([answers[k][i] for i, k in enumerate(choice)]), labels)
        for choice in itertools.product(range(3), repeat=len(labels))
    }
    choice = lowest_mean_iou(candidates)
    found = chosen(candidates, choice).mean_iou()
    assert found == pytest.approx(everything[tuple(choice)])
    # No single image could do worse, no single attack on all does, and the lowest of all choices is near.
    neighbours = [c for c in everything if sum(a != b for a, b in zip(c, choice)) == 1]
    assert found <= min(everything[c] for c in neighbours) + 1e-12
    assert found <= min(each.mean_iou() for each in candidates)
    assert found <= min(everything.values()) + 0.01
    right = [[(answers[k][i] == y)[y >= 0].mean() for i, y in enumerate(labels)] for k in range(3)]
    worst = chosen(candidates, fewest_right(candidates))
    assert worst.mean_image_accuracy() == pytest.approx(np.min(right, 0).mean())
