import keras
import numpy as np
import pytest
import torch
from scipy.stats import norm

from keras_robust.layers import gelu
from tests.layers.gradients import expected_by_torch, value_and_gradients

X = np.concatenate([np.linspace(-12, 12, 241), [-1e4, 1e4, 1e-20]]).astype("float32")


def test_equals_the_definition():
    y = keras.ops.convert_to_numpy(gelu(keras.ops.convert_to_tensor(X)))
    # Absolute: far below zero 1 + erf cancels, as it does in PyTorch.
    np.testing.assert_allclose(y, X.astype("float64") * norm.cdf(X.astype("float64")), rtol=3e-7, atol=1e-6)


def test_value_and_gradient_equal_torch_in_float64():
    x = np.random.default_rng(0).normal(scale=3, size=(2, 3, 4, 16)).astype("float32")
    actual, expected = value_and_gradients(gelu, x), expected_by_torch(torch.nn.functional.gelu, x)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("dtype", "rounding"), [("bfloat16", 2.0**-8), ("float16", 2.0**-11)])
def test_16_bits(dtype, rounding):
    x = keras.ops.cast(X[:-3], dtype)
    y = gelu(x)
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    exact = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")), "float64")
    exact = exact * norm.cdf(exact)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(keras.ops.cast(y, "float32")), exact, rtol=3 * rounding, atol=1e-3
    )


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="ways to run TensorFlow")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_inside_a_compiled_loop(jit_compile):
    import tensorflow as tf

    @tf.function(autograph=False, jit_compile=jit_compile)
    def gradient_in_loop(x):
        def body(i, _):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = gelu(x)
            return i + 1, tape.gradient(y, x)

        return tf.while_loop(lambda i, _: i < 2, body, (tf.constant(0), tf.zeros_like(x)))[1]

    x = X.astype("float64")
    with np.errstate(under="ignore"):
        expected = norm.cdf(x) + x * norm.pdf(x)
    np.testing.assert_allclose(gradient_in_loop(tf.constant(X)).numpy(), expected, rtol=1e-6, atol=1e-6)


def test_saves_and_reloads_in_layers(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, activation=gelu)(keras.layers.Activation(gelu)(inputs)))
    model.save(tmp_path / "gelu.keras")
    x = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    again = keras.saving.load_model(tmp_path / "gelu.keras")
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(net(x)) for net in (model, again)))
