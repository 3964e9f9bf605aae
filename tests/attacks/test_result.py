"""What became of images, by hand."""

import numpy as np

from keras_robust.attacks.result import first_misclassified_at


def test_the_first_attack_that_breaks_an_image_counts():
    # Wrong already, broken by the first, by the second, by both (nearer by the second), by none.
    correct = np.array([False, True, True, True, True])
    first, second = np.array([[0, 1, 0, 1, 0], [0, 0, 1, 1, 0]], bool)
    places = first_misclassified_at(correct, [first, second])
    np.testing.assert_array_equal(places, [0, 1, 2, 1, 3])
    assert places.dtype == np.int16


def test_without_attacks_images_are_right_or_wrong():
    np.testing.assert_array_equal(first_misclassified_at(np.array([True, False]), []), [1, 0])
