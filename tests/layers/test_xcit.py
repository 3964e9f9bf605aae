import keras
import numpy as np
import pytest

from keras_robust.layers import (
    ClassAttention,
    ClassAttentionBlock,
    CrossCovarianceAttention,
    FourierPosition,
    LocalPatchInteraction,
    XCiTBlock,
    XCiTStem,
)


def test_stem_shapes():
    layer, x = XCiTStem(16), np.zeros((2, 32, 33, 3), "float32")
    assert layer.compute_output_shape(x.shape) == tuple(layer(x).shape) == (2, 2, 3, 16)


def test_cross_covariance_attention_does_not_know_positions():
    layer, x = CrossCovarianceAttention(2), np.random.default_rng(0).normal(size=(1, 3, 4, 8)).astype("float32")
    order = np.random.default_rng(1).permutation(12)
    y = keras.ops.convert_to_numpy(layer(x)).reshape(12, 8)
    shuffled = keras.ops.convert_to_numpy(layer(x.reshape(12, 8)[order].reshape(1, 3, 4, 8))).reshape(12, 8)
    np.testing.assert_allclose(shuffled, y[order], rtol=1e-4, atol=1e-6)


def test_fourier_position_tells_rows_from_columns():
    layer, x = FourierPosition(), np.zeros((1, 3, 4, 8), "float32")
    y = keras.ops.convert_to_numpy(layer(x))[0].reshape(12, 8)
    distances = np.abs(y[:, None] - y).max(-1) + np.eye(12)
    assert distances.min() > 1e-4


@pytest.mark.parametrize(
    "layer",
    [
        XCiTStem(16, name="a"),
        FourierPosition(name="b"),
        CrossCovarianceAttention(2, name="c"),
        LocalPatchInteraction(name="d"),
        XCiTBlock(2, 0.5, 0.1, name="e"),
        ClassAttention(2, name="f"),
        ClassAttentionBlock(2, 0.5, name="g"),
    ],
)
def test_config_round_trip(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
