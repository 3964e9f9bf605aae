"""Random draws against the published vectors of Random123 and against the distributions they should have."""

import numpy as np
import pytest
import scipy.stats
from keras import ops

from keras_robust import random


def _word(value):
    return ops.convert_to_tensor(np.array([value], "uint32").view("int32"))


# Known-answer vectors of the Random123 distribution (threefry2x32, 20 rounds): counter, key, result.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_published_vectors(counter, key, expected):
    words = random.threefry2x32(tuple(map(_word, key)), tuple(map(_word, counter)))
    assert tuple(int(ops.convert_to_numpy(word).view("uint32")[0]) for word in words) == expected


@pytest.mark.parametrize(("draw", "distribution"), [(random.uniform, "uniform"), (random.normal, "norm")])
def test_draws_follow_their_distribution(draw, distribution):
    keys = random.example_keys(seed=3, step=7, index=np.arange(4))
    values = ops.convert_to_numpy(draw(keys, np.zeros((4, 64, 64, 3))))
    assert scipy.stats.kstest(values.ravel(), distribution).pvalue > 0.01
    # Examples do not repeat each other.
    correlation = np.corrcoef(values.reshape(4, -1)) - np.eye(4)
    assert np.abs(correlation).max() < 0.05


def test_draws_depend_on_seed_step_and_index_alone():
    like = np.zeros((3, 2, 2, 1))
    whole = ops.convert_to_numpy(random.uniform(random.example_keys(1, 2, np.arange(10, 13)), like))
    single = ops.convert_to_numpy(random.uniform(random.example_keys(1, 2, np.array([11])), like[:1]))
    np.testing.assert_array_equal(whole[1:2], single)
    for other in (random.example_keys(2, 2, np.arange(10, 13)), random.example_keys(1, 3, np.arange(10, 13))):
        assert not np.array_equal(whole, ops.convert_to_numpy(random.uniform(other, like)))
    folded = random.fold_in(random.example_keys(1, 2, np.arange(10, 13)), 1)
    assert not np.array_equal(whole, ops.convert_to_numpy(random.uniform(folded, like)))
