import keras
import numpy as np
import pytest
import torch

from keras_robust.layers import PaddedConv2D
from keras_robust.layers.depthwise import SameDepthwiseConv2D


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (3, 1, 1), (7, 2, 3), (2, 2, 0), (3, 1, 2)])
def test_equals_torch(size, kernel, stride, padding):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 4)).astype("float32")
    layer = PaddedConv2D(6, kernel, strides=stride, padding=padding, groups=2)
    y = layer(x)
    weight, bias = (rng.normal(size=w.shape).astype("float32") for w in layer.weights)
    layer.set_weights([weight, bias])
    expected = torch.nn.functional.conv2d(
        torch.tensor(x.transpose(0, 3, 1, 2)),
        torch.tensor(weight.transpose(3, 2, 0, 1)),
        torch.tensor(bias),
        stride=stride,
        padding=padding,
        groups=2,
    )
    expected = expected.numpy().transpose(0, 2, 3, 1)
    assert layer.compute_output_shape(x.shape) == tuple(y.shape) == expected.shape
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="how PyTorch keeps maps in memory")
@pytest.mark.parametrize("layer", [PaddedConv2D(6, 3, strides=2, padding=1), SameDepthwiseConv2D(3)])
def test_maps_are_not_copied(layer):
    """Keras' convolutions copy each map to channels-first and back."""
    x = torch.rand(2, 8, 8, 4)
    layer(x)
    with torch.profiler.profile(record_shapes=True) as profile:
        y = layer(x)
    copied = [e.input_shapes[0] for e in profile.events() if e.name == "aten::copy_" and len(e.input_shapes[0]) == 4]
    assert not [shape for shape in copied if shape[0] == len(x)]
    assert y.is_contiguous()


def test_padding_is_kept_in_the_config():
    layer = PaddedConv2D(6, 3, padding=1, use_bias=False, name="a")
    again = PaddedConv2D.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.compute_output_shape((1, 5, None, 3)) == (1, 5, None, 6)
