import numpy as np
import pytest

from keras_robust.data import OrientedBatches

pytestmark = pytest.mark.once

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 3, 3, 1), np.uint8)
LABELS = np.arange(10)


def epoch(batches):
    parts = [batches[i] for i in range(len(batches))]
    batches.on_epoch_end()
    return [np.concatenate(part) for part in zip(*parts)]


def orientations(image):
    turned = [np.rot90(image, k) for k in range(4)]
    return turned + [np.fliplr(each) for each in turned]


def test_every_image_once_in_one_of_its_eight_orientations():
    batches = OrientedBatches(IMAGES, LABELS, batch_size=2)
    seen = set()
    for _ in range(60):
        x, y = epoch(batches)
        assert x.dtype == np.float32
        np.testing.assert_array_equal(np.sort(y), LABELS)
        for image, label in zip(np.round(x * 255), y):
            matches = [k for k, each in enumerate(orientations(IMAGES[label])) if np.array_equal(image, each)]
            assert len(matches) == 1
            seen.add((label, matches[0]))
    assert len(seen) == 80


def test_the_seed_decides_and_every_epoch_differs():
    one, two = (OrientedBatches(IMAGES, LABELS, batch_size=5, seed=3) for _ in range(2))
    first = epoch(one)
    for a, b in zip(first, epoch(two)):
        np.testing.assert_array_equal(a, b)
    second = epoch(one)
    assert not np.array_equal(first[1], second[1])
    np.testing.assert_array_equal(second[1], epoch(two)[1])


def test_a_smaller_last_batch_is_left_out():
    batches = OrientedBatches(IMAGES, LABELS, batch_size=4)
    assert len(batches) == 2
    assert epoch(batches)[0].shape == (8, 3, 3, 1)


@pytest.mark.parametrize(
    ("images", "labels", "size", "message"),
    [
        (IMAGES / 255, LABELS, 2, "images must be uint8"),
        (IMAGES[:, :2], LABELS, 2, "images must be uint8"),
        (IMAGES, LABELS[:9], 2, "received 9 for 10"),
        (IMAGES, LABELS, 11, "at most the number of images, 10; received 11"),
        (IMAGES, LABELS, 0, "batch_size must be an integer >= 1"),
    ],
)
def test_bad_arguments(images, labels, size, message):
    with pytest.raises(ValueError, match=message):
        OrientedBatches(images, labels, size)
