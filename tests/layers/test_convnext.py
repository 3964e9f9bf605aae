import keras
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from keras_robust.layers import ConvNeXtBlock, ConvNeXtDownsample


def with_random_weights(layer, x):
    """The layer, built, and its weights as torch tensors."""
    layer(x)
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(size=w.shape).astype("float32") for w in layer.weights])
    return layer, [torch.tensor(w) for w in layer.get_weights()]


@pytest.mark.parametrize("layer_scale_init", [1e-6, None])
def test_block_equals_torch(layer_scale_init):
    x = np.random.default_rng(1).normal(size=(2, 5, 4, 3)).astype("float32")
    layer, weights = with_random_weights(ConvNeXtBlock(layer_scale_init), x)
    kernel, bias, norm_gamma, norm_beta, w1, b1, w2, b2, *gamma = weights
    y = F.conv2d(torch.tensor(x).permute(0, 3, 1, 2), kernel.permute(2, 3, 0, 1), bias, padding=3, groups=3)
    y = F.layer_norm(y.permute(0, 2, 3, 1), (3,), norm_gamma, norm_beta, eps=1e-6)
    y = F.gelu(y @ w1 + b1) @ w2 + b2
    expected = torch.tensor(x) + (y * gamma[0] if gamma else y)
    assert len(gamma) == (layer_scale_init is not None)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_block_starts_close_to_the_identity():
    x = np.random.default_rng(1).normal(size=(1, 4, 4, 8)).astype("float32")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ConvNeXtBlock(1e-6)(x)), x, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_downsample_equals_torch(size):
    x = np.random.default_rng(1).normal(size=(2, *size, 3)).astype("float32")
    layer, (gamma, beta, kernel, bias) = with_random_weights(ConvNeXtDownsample(4), x)
    y = F.layer_norm(torch.tensor(x), (3,), gamma, beta, eps=1e-6).permute(0, 3, 1, 2)
    expected = F.conv2d(y, kernel.permute(3, 2, 0, 1), bias, stride=2).permute(0, 2, 3, 1)
    assert layer.compute_output_shape(x.shape) == tuple(expected.shape)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", [ConvNeXtBlock(None, 0.1, True, True, name="a"), ConvNeXtDownsample(8, name="b")])
def test_config_round_trip(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
