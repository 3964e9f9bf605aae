"""The images that a run is validated on."""

import numpy as np
import pytest

from keras_robust.backend.distribution import Distribution
from keras_robust.recipes.datasets import ValidationFeed
from tests.evaluation.problem import Flat

pytestmark = pytest.mark.once


@pytest.mark.parametrize(("count", "batch_size"), [(1000, 640), (7, 3), (5, 8), (6, 3)])
def test_all_images_count_once(count, batch_size):
    feed = ValidationFeed(Flat(count), count, 4, batch_size, 3, Distribution())
    images, _, weights = (np.concatenate(each) for each in zip(*(feed[i] for i in range(len(feed)))))
    assert weights.sum() == feed.n_examples == count
    counted = images[weights > 0]
    expected = Flat(count).sample(count).arrays(4, seed=None)[0]
    np.testing.assert_array_equal(np.round(255 * counted), expected)
    assert len({len(feed[i][0]) for i in range(len(feed))}) == 1  # one compilation serves all
