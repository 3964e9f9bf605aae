import keras
import numpy as np
import pytest

from keras_robust.layers import BasicBlock, Bottleneck, ResNetStem, SqueezeExcite


@pytest.mark.parametrize(("pool", "shape"), [(True, (2, 3, 2, 4)), (False, (2, 5, 4, 4))])
def test_stem_shapes(pool, shape):
    layer, x = ResNetStem(4, pool), np.zeros((2, 9, 8, 3), "float32")
    assert layer.compute_output_shape(x.shape) == tuple(layer(x).shape) == shape


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("stride", [1, 2])
def test_blocks_start_as_their_shortcuts(stride, block):
    x = np.random.default_rng(0).uniform(size=(2, 5, 4, 8)).astype("float32")
    layer = block(8, stride=stride)
    y = layer(x)
    assert layer.compute_output_shape(x.shape) == tuple(y.shape) == (2, -(-5 // stride), -(-4 // stride), 8)
    if stride == 1:
        np.testing.assert_allclose(keras.ops.convert_to_numpy(y), x, rtol=1e-6)


def test_batch_statistics_move_in_training_only():
    x = np.random.default_rng(0).normal(size=(4, 5, 5, 8)).astype("float32")
    layer = Bottleneck(8)
    layer(x, training=False)
    mean = layer.norm1.moving_mean
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(mean.value), np.zeros(2))
    layer(x, training=True)
    # A tenth of the batch's mean.
    expected = 0.1 * keras.ops.convert_to_numpy(layer.conv1(x)).mean((0, 1, 2))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(mean.value), expected, rtol=1e-4, atol=1e-6)


def test_squeeze_excite_scales_each_channel_by_a_gate():
    x = np.random.default_rng(0).uniform(1, 2, size=(2, 3, 3, 4)).astype("float32")
    gates = keras.ops.convert_to_numpy(SqueezeExcite(2)(x)) / x
    assert ((gates > 0) & (gates < 1)).all()
    np.testing.assert_allclose(gates, np.broadcast_to(gates[:, :1, :1], gates.shape), rtol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        ResNetStem(4, pool=False, name="a"),
        SqueezeExcite(2, name="b"),
        BasicBlock(8, 2, "gelu", 0.1, name="d"),
        Bottleneck(8, width_ratio=0.5, name="e"),
        Bottleneck(16, 2, "silu", groups=2, first_norm=False, squeeze_ratio=0.25, drop_path_rate=0.1, name="c"),
    ],
)
def test_config_round_trip(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
