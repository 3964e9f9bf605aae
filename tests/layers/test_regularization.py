import keras
import numpy as np
import pytest

from keras_robust.layers import LayerScale, MeanSparse, StochasticDepth


def test_layer_scale_multiplies_each_channel():
    layer = LayerScale(0.1)
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), 0.1 * x, rtol=1e-6)
    layer.set_weights([np.array([1, 2, 3, 4], "float32")])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), x * [1, 2, 3, 4], rtol=1e-6)


def test_stochastic_depth_drops_whole_samples_at_its_rate():
    x = np.random.default_rng(0).uniform(1, 2, size=(4000, 2, 3)).astype("float32")
    y = keras.ops.convert_to_numpy(StochasticDepth(0.25, seed=0)(x, training=True))
    dropped = (y == 0).all(axis=(1, 2))
    np.testing.assert_allclose(y[~dropped], x[~dropped] / 0.75, rtol=1e-6)
    # Five standard deviations of a binomial proportion.
    assert abs(dropped.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000)


def test_stochastic_depth_draws_anew_each_time():
    layer, x = StochasticDepth(0.5, seed=0), np.ones((64, 1), "float32")
    first, second = (keras.ops.convert_to_numpy(layer(x, training=True)) for _ in range(2))
    assert (first != second).any()


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True)])
def test_stochastic_depth_is_the_identity_and_draws_nothing(rate, training):
    layer, x = StochasticDepth(rate, seed=0), np.random.default_rng(0).random((8, 3)).astype("float32")
    states = [keras.ops.convert_to_numpy(v) for v in layer.non_trainable_variables]
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(x, training=training)), x)
    assert len(states) == (rate > 0)
    for before, after in zip(states, layer.non_trainable_variables):
        np.testing.assert_array_equal(before, keras.ops.convert_to_numpy(after))


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_stochastic_depth_refuses(rate):
    with pytest.raises(ValueError, match="rate must lie in"):
        StochasticDepth(rate)


@pytest.mark.parametrize("layer", [LayerScale(0.1, name="a"), StochasticDepth(0.1, seed=3, name="b")])
def test_config_round_trip(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


def test_mean_sparse_sets_what_lies_within_so_many_deviations():
    layer = MeanSparse()
    x = np.array([[1.0, 1.0], [1.9, 1.9], [2.1, 2.1], [3.9, 3.9]], "float32")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(x)), x)
    # Within 0.5 of 2 and within 1 of 2.
    layer.set_weights([np.full(2, 2.0), np.array([1.0, 4.0]), np.array(0.5)])
    expected = [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0], [3.9, 3.9]]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), expected)
    assert layer.trainable_weights == []
