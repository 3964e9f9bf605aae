import keras
import numpy as np
import pytest

from keras_robust.backend import kernels
from keras_robust.layers.dense import Dense
from tests.layers.gradients import expected_by_torch, value_and_gradients


@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6), (2, 3, 4, 6)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_value_and_gradients_equal_torch_in_float64(shape, with_bias):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=size).astype("float32") for size in (shape, (6, 7), (7,))][: 2 + with_bias]
    actual = value_and_gradients(lambda x, kernel, bias=None: kernels.dense(x, kernel, bias), *arrays)
    expected = expected_by_torch(lambda x, kernel, bias=0: x @ kernel + bias, *arrays)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_equals_keras_dense(policy, activation):
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 6)).astype("float32")
    ours, theirs = (kind(7, activation=activation, dtype=policy) for kind in (Dense, keras.layers.Dense))
    ours(x), theirs(x)
    ours.set_weights([np.random.default_rng(1).normal(size=w.shape) for w in ours.weights])
    theirs.set_weights(ours.get_weights())
    assert ours(x).dtype == theirs(x).dtype
    a, b = (keras.ops.convert_to_numpy(keras.ops.cast(layer(x), "float32")) for layer in (ours, theirs))
    np.testing.assert_allclose(
        a, b, rtol=1e-5 if policy == "float32" else 2e-2, atol=1e-5 if policy == "float32" else 3e-2
    )


def test_unknown_sizes_and_reload(tmp_path):
    inputs = keras.Input((None, None, 6))
    model = keras.Model(inputs, Dense(7, name="dense")(inputs))
    assert model.output_shape == (None, None, None, 7)
    model.save(tmp_path / "dense.keras")
    again = keras.saving.load_model(tmp_path / "dense.keras")
    assert isinstance(again.get_layer("dense"), Dense)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 6)).astype("float32")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
