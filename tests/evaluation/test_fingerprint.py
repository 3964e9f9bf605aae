import keras
import numpy as np
import pytest

from keras_robust.evaluation.fingerprint import fingerprint
from tests.evaluation.problem import linear_model

pytestmark = pytest.mark.once

LOGITS = np.array([[1.0, 0.0], [0.2, 0.5]], "float32")


def test_fingerprint_is_of_the_weights():
    one, two = linear_model(), linear_model()
    assert fingerprint(one, LOGITS) == fingerprint(two, LOGITS)
    kernel, bias = two.get_weights()
    two.set_weights([kernel, np.nextafter(bias, 1, dtype="float32")])
    assert fingerprint(one, LOGITS) != fingerprint(two, LOGITS)


def net(activation="relu", mean=0.5, scale=1.0, sequential=False):
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((8, 8, 3)),
        keras.layers.Rescaling(scale),
        keras.layers.Normalization(mean=mean, variance=1.0),
        keras.layers.Conv2D(4, 3, activation=activation),
        keras.Sequential([keras.Input((6, 6, 4)), keras.layers.Flatten(), keras.layers.Dense(2)]),
    ]
    if sequential:
        return keras.Sequential(layers)
    h = layers[0]
    for layer in layers[1:]:
        h = layer(h)
    return keras.Model(layers[0], h)


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("change", [{"activation": "gelu"}, {"mean": 0.4}, {"scale": 1 / 255}])
def test_a_corrected_layer_without_weights_is_another_function(change, sequential):
    first = fingerprint(net(sequential=sequential), LOGITS)
    assert first == fingerprint(net(sequential=sequential), LOGITS)  # whose layers have other names
    assert first != fingerprint(net(sequential=sequential, **change), LOGITS)


def test_fingerprint_knows_a_loaded_model(tmp_path):
    model = net()
    model.save(tmp_path / "net.keras")
    assert fingerprint(keras.saving.load_model(tmp_path / "net.keras"), LOGITS) == fingerprint(model, LOGITS)


def test_fingerprint_of_a_callable_is_of_its_logits():
    assert fingerprint(abs, LOGITS) == fingerprint(len, LOGITS + 1e-6)
    assert fingerprint(abs, LOGITS) != fingerprint(abs, 1.01 * LOGITS + 0.01)
    assert fingerprint(abs, LOGITS) != fingerprint(abs, -LOGITS)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = keras.layers.Dense(2)

    def call(self, x):
        return self.head(x)


def test_fingerprint_of_a_subclassed_model_is_of_weights_and_logits():
    keras.utils.set_random_seed(0)
    model = Subclassed()
    model(np.zeros((1, 4), "float32"))
    assert fingerprint(model, LOGITS) == fingerprint(model, LOGITS)
    assert fingerprint(model, LOGITS) != fingerprint(model, 1.01 * LOGITS + 0.01)
