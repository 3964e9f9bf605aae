"""The mixture of two classifiers against its formula in PyTorch, in float64, as RobustBench's code computes it."""

import keras
import numpy as np
import pytest
import torch
from keras import ops

import keras_robust as kr
from keras_robust.layers import NonlinearMixture
from keras_robust.models.mixture import IMAGENET_SWIN_L

RNG = np.random.default_rng(0)


def expected(standard, robust, share, scale, power, bias, top=250):
    z = torch.tensor(robust, dtype=torch.float64)
    largest = z.topk(min(top, z.shape[1]), dim=1).values
    z = (z - largest.mean(1, keepdim=True)) / (largest.var(1, keepdim=True) + 1e-8).sqrt()
    a = torch.nn.functional.gelu(z + bias)
    robust_probabilities = (scale * a.sign() * a.abs() ** power).softmax(1)
    answer = torch.nn.functional.one_hot(torch.tensor(standard).argmax(1), z.shape[1])
    return torch.log((1 - share) * answer + share * robust_probabilities).numpy()


@pytest.mark.parametrize("classes", [10, 1000])
def test_equals_the_formula(classes):
    standard, robust = (RNG.normal(0, 3, (16, classes)).astype("float32") for _ in range(2))
    robust[0, 3] = 40  # where the robust one is sure, and the other disagrees
    found = ops.convert_to_numpy(NonlinearMixture(**IMAGENET_SWIN_L)(standard, robust))
    np.testing.assert_allclose(found, expected(standard, robust, **IMAGENET_SWIN_L), rtol=2e-5, atol=2e-5)
    assert found.argmax(1)[0] == 3


def test_of_two_models():
    def net(seed):
        keras.utils.set_random_seed(seed)
        layers = [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)]
        return keras.Sequential(layers)

    transformation = {"share": 0.9, "scale": 0.5, "power": 2.0, "bias": -0.3}
    nets, x = [net(0), net(1)], RNG.random((3, 8, 8, 3), dtype="float32")
    mixture = kr.models.mixed_nuts(*nets, **transformation)
    logits = [ops.convert_to_numpy(each(x)) for each in nets]
    found = ops.convert_to_numpy(mixture(x))
    np.testing.assert_allclose(found, expected(*logits, **transformation), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-5)
    again = keras.models.model_from_json(mixture.to_json())
    again.set_weights(mixture.get_weights())
    np.testing.assert_array_equal(ops.convert_to_numpy(again(x)), found)
    x_adv = kr.attacks.FGSM(kr.ThreatModel("Linf", 0.1))(mixture, x, found.argmax(1))
    assert np.abs(x_adv - x).max() > 0.09  # gradients come through the robust one


def test_refused():
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\); received 1"):
        NonlinearMixture(1, 1.0, 1.0, 0.0)
    three, four = (
        keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(n)]) for n in (3, 4)
    )
    with pytest.raises(ValueError, match="standard and robust must have the same classes; received outputs"):
        kr.models.mixed_nuts(three, four)
    with pytest.raises(ValueError, match="standard and robust must be models of different names; both are called"):
        kr.models.mixed_nuts(four, four)
