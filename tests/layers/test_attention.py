import keras
import numpy as np
import pytest
import torch

from keras_robust.layers import Attention


def test_attention_equals_torch():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 8)).astype("float32")
    layer = Attention(num_heads=2)
    layer(x)
    weights = [rng.normal(size=w.shape).astype("float32") for w in layer.weights]
    layer.set_weights(weights)
    in_weight, in_bias, out_weight, out_bias = (torch.tensor(w.T) for w in weights)
    reference = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(in_weight)
        reference.in_proj_bias.copy_(in_bias)
        reference.out_proj.weight.copy_(out_weight)
        reference.out_proj.bias.copy_(out_bias)
        expected, _ = reference(*[torch.tensor(x)] * 3)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_attention_refuses_heads_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match="num_heads must divide the 8 channels, received 3"):
        Attention(num_heads=3)(np.zeros((1, 2, 8), "float32"))


def test_attention_weights_are_computed_in_float32_under_a_16_bit_policy():
    """Scores of 1000 and more: in bfloat16 with its 8 bits neighbouring scores would be several units apart."""
    x = np.random.default_rng(0).uniform(1, 2, size=(1, 6, 8)).astype("float32")
    exact, rounded = Attention(1, name="exact"), Attention(1, dtype="mixed_bfloat16", name="rounded")
    exact(x), rounded(x)
    identity = np.concatenate([np.eye(8), np.eye(8), np.eye(8)], axis=1).astype("float32")
    for layer in (exact, rounded):
        layer.set_weights([identity, np.zeros(24, "float32"), np.eye(8, dtype="float32"), np.zeros(8, "float32")])
    difference = keras.ops.cast(rounded(x), "float32") - exact(x)
    assert np.abs(keras.ops.convert_to_numpy(difference)).max() < 0.05


def test_config_round_trip():
    layer = Attention(4, name="a")
    assert Attention.from_config(layer.get_config()).get_config() == layer.get_config()
