import keras
import numpy as np
import pytest
import torch

from keras_robust.backend import kernels
from keras_robust.layers import GlobalResponseNorm, LayerNorm
from tests.layers.gradients import expected_by_torch, value_and_gradients, weighting

SHAPES = [(5, 6), (2, 3, 8), (2, 3, 4, 96), (3, 1), (2, 384)]


def arguments(shape, scale=1.0, shift=0.0):
    rng = np.random.default_rng(0)
    x = shift + scale * rng.normal(size=shape)
    gamma, beta = 1 + 0.3 * rng.normal(size=(2, shape[-1]))
    return [array.astype("float32") for array in (x, gamma, beta)]


def kernel(x, gamma, beta):
    return kernels.layer_norm(x, gamma, beta, 1e-6)


def by_torch(x, gamma, beta):
    return torch.nn.functional.layer_norm(x, x.shape[-1:], gamma, beta, 1e-6)


def assert_close(actual, expected, rounding=2.0**-23):
    """Within 200 roundings of the largest value: sums over the axis and the batch round a few dozen times."""
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=200 * rounding * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradients_equal_torch_in_float64(shape):
    # A single channel has variance 0, which multiplies roundings by 1 / sqrt(epsilon).
    arrays = arguments(shape)
    assert_close(value_and_gradients(kernel, *arrays), expected_by_torch(by_torch, *arrays))


def test_large_mean_does_not_cost_precision():
    arrays = arguments((4, 96), shift=1000.0)
    value, *_ = value_and_gradients(kernel, *arrays)
    # E[x^2] - E[x]^2 would be off by 1e6 roundings here; x itself is rounded to 6e-5.
    assert_close([value], expected_by_torch(by_torch, *arrays)[:1], rounding=2.0**-20)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_statistics_in_float32_under_16_bit_policies(policy):
    layer = LayerNorm(dtype=policy)
    # In float16 the squares would overflow and the variance of 4096 such values would be lost in bfloat16.
    x = keras.ops.cast(300 + 100 * np.random.default_rng(0).normal(size=(2, 4096)), layer.compute_dtype)
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    assert {keras.backend.standardize_dtype(w.dtype) for w in layer.weights} == {"float32"}
    exact = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")), "float64")
    exact = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    rounding = 2.0**-8 if policy == "mixed_bfloat16" else 2.0**-11
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(keras.ops.cast(y, "float32")), exact, rtol=rounding, atol=1e-5
    )


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras computes it in float32 elsewhere")
def test_float64():
    layer, x = LayerNorm(dtype="float64"), np.random.default_rng(0).normal(size=(3, 64))
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    y = layer(x)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(y), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gradients_in_16_bits(dtype):
    x, gamma, beta = arguments((4, 8, 32))
    x = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(keras.ops.cast(x, dtype), "float32")))

    def through(x, gamma, beta):
        return kernel(keras.ops.cast(x, dtype), gamma, beta)

    rounding = 2.0**-8 if dtype == "bfloat16" else 2.0**-11
    actual, expected = value_and_gradients(through, x, gamma, beta), expected_by_torch(by_torch, x, gamma, beta)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=4 * rounding * np.abs(b).max())


def test_constant_input_has_no_gradient_to_speak_of():
    # Flat regions: the variance is 0, the result beta.
    _, gamma, beta = arguments((2, 16))
    value, gradient, *_ = value_and_gradients(kernel, np.full((2, 16), 0.25, "float32"), gamma, beta)
    np.testing.assert_allclose(value, np.broadcast_to(beta, (2, 16)), rtol=0, atol=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="ways to run TensorFlow")
@pytest.mark.parametrize("how", ["eager", "graph", "xla", "while_loop"])
def test_every_way_to_run_tensorflow(how):
    import tensorflow as tf

    arrays = arguments((3, 5, 16))

    def gradients(x, gamma, beta):
        with tf.GradientTape() as tape:
            tape.watch([x, gamma, beta])
            y = kernel(x, gamma, beta)
            total = tf.reduce_sum(y * weighting(y.shape))
        return [y, *tape.gradient(total, [x, gamma, beta])]

    def looped(x, gamma, beta):
        results = [tf.zeros_like(x), tf.zeros_like(x), tf.zeros_like(gamma), tf.zeros_like(beta)]
        return tf.while_loop(
            lambda i, *_: i < 3, lambda i, *_: (i + 1, *gradients(x, gamma, beta)), (tf.constant(0), *results)
        )[1:]

    ways = {
        "eager": gradients,
        "graph": tf.function(gradients, autograph=False),
        "xla": tf.function(gradients, autograph=False, jit_compile=True),
        "while_loop": tf.function(looped, autograph=False),
    }
    actual = [t.numpy() for t in ways[how](*map(tf.constant, arrays))]
    assert_close(actual, expected_by_torch(by_torch, *arrays))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the graph is TensorFlow's")
def test_gradient_of_the_images_alone_computes_no_other():
    import tensorflow as tf

    @tf.function(autograph=False)
    def image_gradient(x, gamma, beta):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            y = kernel(x, gamma, beta)
        return tape.gradient(y, x)

    function = image_gradient.get_concrete_function(*map(tf.constant, arguments((3, 5, 16))))
    reached, pending = set(), [t.op for t in function.graph.outputs]
    while pending:
        op = pending.pop()
        if op.name not in reached:
            reached.add(op.name)
            pending += [t.op for t in op.inputs]
    # The weights' gradients are the only sums (statistics are means).
    assert not [name for name in reached if function.graph.get_operation_by_name(name).type == "Sum"]


def test_same_logits_after_reload(tmp_path):
    inputs = keras.Input((None, None, 8))
    model = keras.Model(inputs, LayerNorm(epsilon=1e-5, name="norm")(inputs))
    model.set_weights([np.linspace(-1, 2, 8), np.linspace(0, 1, 8)])
    model.save(tmp_path / "norm.keras")
    again = keras.saving.load_model(tmp_path / "norm.keras")
    assert again.get_layer("norm").epsilon == 1e-5
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 8)).astype("float32")
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(net(x)) for net in (model, again)))


@pytest.mark.parametrize("epsilon", [0, -1e-6, float("nan"), "small"])
def test_refuses_epsilon(epsilon):
    with pytest.raises(ValueError, match="epsilon must be a positive number, received"):
        LayerNorm(epsilon=epsilon)


def test_refuses_unknown_channels():
    with pytest.raises(ValueError, match="static size"):
        LayerNorm().build((None, 4, None))


def response_norm(x):
    length = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
    relative = length / (length.mean(-1, keepdim=True) + 1e-6)
    return x + torch.arange(1.0, 4.0) * x * relative + 0.5


def test_global_response_norm_equals_torch():
    """Also where a channel is zero everywhere: there the root has no gradient."""
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype("float32")
    x[0, :, :, 1] = 0
    x[1] = 0
    layer = GlobalResponseNorm()
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(x)), x)
    layer.set_weights([np.arange(1.0, 4.0), np.full(3, 0.5)])
    for ours, theirs in zip(value_and_gradients(layer, x), expected_by_torch(response_norm, x)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert GlobalResponseNorm.from_config(layer.get_config()).get_config() == layer.get_config()
