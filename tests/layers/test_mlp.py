import keras
import numpy as np
import torch

from keras_robust.layers import Mlp


def test_equals_torch():
    layer, x = Mlp(ratio=2, name="a"), np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    layer(x)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=w.shape).astype("float32") for w in layer.weights])
    w1, b1, w2, b2 = (torch.tensor(w) for w in layer.get_weights())
    expected = torch.nn.functional.gelu(torch.tensor(x) @ w1 + b1) @ w2 + b2
    assert w1.shape == (4, 8)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_width_and_config():
    layer = Mlp(48 / 11, True, True, name="a")
    layer.build((None, 2, 3, 1408))
    assert layer.fc1.kernel.shape[1] == layer.grn.gamma.shape[0] == layer.sparse.moving_mean.shape[0] == 6144
    assert Mlp.from_config(layer.get_config()).get_config() == layer.get_config()
