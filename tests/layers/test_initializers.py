import keras
import numpy as np
import pytest
from scipy import stats

from keras_robust.layers.initializers import FanOutNormal, TruncatedNormal


def test_follows_the_truncated_normal_distribution():
    keras.utils.set_random_seed(0)
    values = keras.ops.convert_to_numpy(TruncatedNormal(0.02)((200, 500))).ravel()
    assert abs(values).max() <= 0.04
    assert stats.kstest(values, stats.truncnorm(-2, 2, scale=0.02).cdf).pvalue > 0.01


def test_fan_out_normal_keeps_the_variance_of_gradients():
    keras.utils.set_random_seed(0)
    values = keras.ops.convert_to_numpy(FanOutNormal()((3, 3, 32, 64)))
    assert values.var() == pytest.approx(2 / (3 * 3 * 64), rel=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shape_and_dtype(dtype):
    values = TruncatedNormal()((2, 3), dtype=dtype)
    assert tuple(values.shape) == (2, 3)
    assert keras.backend.standardize_dtype(values.dtype) == dtype


def test_same_seed_same_weights_and_every_draw_anew():
    initializer = TruncatedNormal()

    def draw():
        keras.utils.set_random_seed(7)
        return [keras.ops.convert_to_numpy(initializer((4, 5))) for _ in range(2)]

    (first, second), again = draw(), draw()
    np.testing.assert_array_equal(again, [first, second])
    assert (first != second).any()
    # A value of this seed, the same on every backend.
    assert first[0, 0] == pytest.approx(0.0041897795, rel=1e-6)
