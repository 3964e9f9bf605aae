import keras
import numpy as np
import pytest
import torch

from keras_robust.layers.depthwise import SameDepthwiseConv2D, same_depthwise
from tests.layers.gradients import expected_by_torch, value_and_gradients


def by_torch(x, kernel):
    y = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), kernel.permute(2, 3, 0, 1), padding=3, groups=x.shape[-1])
    return y.permute(0, 2, 3, 1)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 1), (2, 9), (4, 4), (9, 8), (3, 17)])
def test_value_and_gradients_equal_torch_in_float64(size):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype("float32") for shape in ((2, *size, 3), (7, 7, 3, 1))]
    for a, b in zip(value_and_gradients(same_depthwise, *arrays), expected_by_torch(by_torch, *arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_lose_the_last_digits_alone(dtype):
    rng = np.random.default_rng(0)
    inputs = [keras.ops.cast(rng.normal(size=shape), dtype) for shape in ((2, 9, 9, 3), (7, 7, 3, 1))]
    y = same_depthwise(*inputs)
    exact = [
        torch.tensor(keras.ops.convert_to_numpy(keras.ops.cast(a, "float32")), dtype=torch.float64) for a in inputs
    ]
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    epsilon = {"bfloat16": 2**-8, "float16": 2**-11}[dtype]
    difference = np.abs(keras.ops.convert_to_numpy(keras.ops.cast(y, "float32")) - by_torch(*exact).numpy())
    # TensorFlow adds up in 16 bits, ours on JAX in 32.
    units = 1 if keras.backend.backend() == "jax" else 8
    assert difference.max() <= units * epsilon * np.abs(by_torch(*exact).numpy()).max()


def test_layer_equals_keras_and_reloads(tmp_path):
    inputs = keras.Input((None, None, 3))
    ours = keras.Model(inputs, SameDepthwiseConv2D(7, bias_initializer="normal", name="dw")(inputs))
    theirs = keras.Model(inputs, keras.layers.DepthwiseConv2D(7, padding="same")(inputs))
    theirs.set_weights(ours.get_weights())
    ours.save(tmp_path / "dw.keras")
    again = keras.saving.load_model(tmp_path / "dw.keras")
    x = np.random.default_rng(0).normal(size=(2, 2, 3, 3)).astype("float32")
    expected = keras.ops.convert_to_numpy(theirs(x))
    for model in (ours, again):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("options", "message"), [({}, "kernel_size must be odd"), ({"strides": 2}, "strides")])
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        SameDepthwiseConv2D(7 if options else 4, **options)
