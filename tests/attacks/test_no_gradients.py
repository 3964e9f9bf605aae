"""Models that attacks by gradients see nothing of: never robust in silence, whoever is asked."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_robust as kr

BACKEND = keras.backend.backend()
THREAT = kr.ThreatModel("Linf", 0.05)
GRADIENT_ATTACKS = {
    "apgd": kr.attacks.APGD(THREAT, n_iter=5, returns="misclassified"),
    "apgd-random": kr.attacks.APGD(THREAT, n_iter=5, random_start=True, returns="misclassified"),
    "pgd": kr.attacks.PGD(THREAT, n_iter=5, returns="last"),
    "fgsm": kr.attacks.FGSM(THREAT),
    "fab": kr.attacks.FAB(THREAT, n_iter=5),
    "fab-targeted": kr.attacks.FAB(THREAT, n_iter=5, targeted=True),
}


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(0).normal(size=(6 * 6 * 3, 5)).astype("float32")


@pytest.fixture(scope="module")
def data(weights):
    x = np.random.default_rng(1).random((8, 6, 6, 3), dtype=np.float32)
    return x, (x.reshape(8, -1) @ weights).argmax(1)


def linear(weights, x):
    return ops.matmul(ops.reshape(x, (x.shape[0], -1)), weights)


@pytest.mark.parametrize("name", GRADIENT_ATTACKS)
def test_rounding_inside_is_a_warning_with_the_share_of_images(name, weights, data):
    def rounded(x):
        return linear(weights, ops.round(255 * x) / 255)

    with pytest.warns(UserWarning, match="zero for 100% of the images.*Square finds, which needs no gradients"):
        GRADIENT_ATTACKS[name](rounded, *data)


@pytest.mark.parametrize("name", GRADIENT_ATTACKS)
def test_gradients_that_are_there_are_no_warning(name, weights, data):
    GRADIENT_ATTACKS[name](lambda x: linear(weights, x), *data)


def test_the_share_counts_images(weights, data):
    def half(x):
        return linear(weights, ops.where(ops.mean(x, axis=(1, 2, 3), keepdims=True) > level, x, ops.round(x)))

    level = float(np.median(data[0].mean((1, 2, 3))))
    with pytest.warns(UserWarning, match="zero for 50% of the images"):
        GRADIENT_ATTACKS["apgd"](half, *data)


@pytest.mark.parametrize("name", ["apgd", "fgsm", "fab"])
def test_a_function_of_arrays_is_told_to_use_square(name, weights, data):
    def model(x):
        return ops.convert_to_numpy(x).reshape(x.shape[0], -1) @ weights

    if BACKEND == "jax":
        with pytest.raises(ValueError, match=r"differentiable = False and attack it by Square"):
            GRADIENT_ATTACKS[name](model, *data)
    else:
        with pytest.warns(UserWarning, match="zero for 100% of the images.*Square"):
            GRADIENT_ATTACKS[name](model, *data)


def test_a_declared_black_box_is_attacked_where_it_is(weights, data):
    def model(x):
        return np.asarray(ops.convert_to_numpy(x)).reshape(len(x), -1) @ weights

    model.differentiable = False
    x, y = data
    x_adv = kr.attacks.Square(THREAT, n_queries=100)(model, x, y)
    expected = kr.attacks.Square(THREAT, n_queries=100)(lambda x: linear(weights, x), x, y)
    np.testing.assert_allclose(x_adv, expected, atol=1e-6)
    assert ((x_adv.reshape(8, -1) @ weights).argmax(1) != y).any()


@pytest.mark.skipif(BACKEND != "torch", reason="a mode of PyTorch")
def test_inference_mode_hides_no_gradients():
    import torch

    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(keras.layers.Conv2D(4, 3)(inputs))))
    x = np.random.default_rng(0).random((16, 6, 6, 3), dtype=np.float32)
    y = model.predict(x, verbose=0).argmax(1)

    def compiled():
        trainer = kr.AdversarialModel(model, kr.attacks.APGD(THREAT, n_iter=2))
        trainer.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return trainer

    outside = compiled()

    def found(trainer):
        attacked = {name: attack(model, x, y) for name, attack in GRADIENT_ATTACKS.items()}
        given = kr.attacks.FGSM(THREAT)(model, torch.tensor(x), torch.tensor(y))
        result = kr.attacks.AutoAttack(THREAT, "short")(model, x, y)
        logs = trainer.evaluate(x, y, verbose=0, return_dict=True)
        return {**attacked, "tensors": given.numpy(), "autoattack": result.x_adv, "trainer": logs["robust_accuracy"]}

    expected = found(outside)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            for name, result in found(outside).items():
                np.testing.assert_array_equal(result, expected[name], err_msg=name)
            assert found(compiled())["trainer"] == expected["trainer"]
    assert expected["trainer"] < 1
