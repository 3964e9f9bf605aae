import keras
import numpy as np
import pytest

from keras_robust.layers import ConvStem, PatchStem


@pytest.mark.parametrize("stride", [4, 16])
def test_patch_stem_is_a_matrix_product_of_each_patch(stride):
    layer = PatchStem(5, stride=stride)
    rng = np.random.default_rng(0)
    # Three rows and one column of pixels are left over.
    x = rng.normal(size=(2, 2 * stride + 3, 3 * stride + 1, 3)).astype("float32")
    assert layer.compute_output_shape(x.shape) == tuple(layer(x).shape) == (2, 2, 3, 5)
    kernel, bias = (rng.normal(size=w.shape).astype("float32") for w in layer.weights)
    layer.set_weights([kernel, bias])
    patches = x[:, : 2 * stride, : 3 * stride].reshape(2, 2, stride, 3, stride, 3).transpose(0, 1, 3, 2, 4, 5)
    expected = patches.reshape(2, 2, 3, -1) @ kernel.reshape(-1, 5) + bias
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "stride", "out_channels", "n_weights", "shape"),
    [
        ((4, 8), 4, None, 8, (2, 4, 5, 8)),
        ((4, 6, 8), 4, None, 12, (2, 4, 5, 8)),
        ((4, 6, 8, 10), 16, 12, 18, (2, 1, 2, 12)),
    ],
)
def test_conv_stem_shapes(channels, stride, out_channels, n_weights, shape):
    layer = ConvStem(channels, stride, out_channels)
    x = np.zeros((2, 16, 20, 3), "float32")
    assert layer.compute_output_shape(x.shape) == tuple(layer(x).shape) == shape
    assert len(layer.weights) == n_weights


@pytest.mark.parametrize("stride", [3, 8, 0])
def test_conv_stem_refuses(stride):
    with pytest.raises(ValueError, match=f"stride must be a power of two .* received stride={stride}"):
        ConvStem((4, 8), stride)


@pytest.mark.parametrize("layer", [PatchStem(8, 4, norm_epsilon=1e-5, name="a"), ConvStem((4, 8), 4, 16, name="b")])
def test_config_round_trip(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
