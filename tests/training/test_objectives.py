"""Objectives against their formulas in numpy, and inside a training step."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import log_softmax, softmax

import keras_robust as kr
from keras_robust.training import MART, TRADES

RNG = np.random.default_rng(0)
ADVERSARIAL, CLEAN = (3 * RNG.normal(size=(6, 4)) for _ in range(2))
HARD = np.array([0, 1, 2, 3, 0, 1])
SOFT = RNG.dirichlet(np.ones(4), 6)


def _kl(p, q):
    return (softmax(p, 1) * (log_softmax(p, 1) - log_softmax(q, 1))).sum(1)


def _trades(y, adversarial, clean):
    return -(y * log_softmax(clean, 1)).sum(1) + 6 * _kl(clean, adversarial)


def _mart(y, adversarial, clean):
    p, rows = softmax(adversarial, 1), np.arange(len(y))
    others = p.copy()
    others[rows, y.argmax(1)] = -1
    boosted = -(y * np.log(p)).sum(1) - np.log(1 - others.max(1))
    return boosted + 5 * _kl(clean, adversarial) * (1 - (y * softmax(clean, 1)).sum(1))


@pytest.mark.parametrize(("objective", "formula"), [(TRADES(), _trades), (MART(), _mart)])
def test_formulas(objective, formula):
    logits = tuple(ops.convert_to_tensor(z.astype("float32")) for z in (ADVERSARIAL, CLEAN))
    for labels, soft in ((HARD, np.eye(4)[HARD]), (SOFT, SOFT)):
        expected = formula(soft, ADVERSARIAL, CLEAN)
        values = objective.call(ops.convert_to_tensor(labels), logits)
        np.testing.assert_allclose(ops.convert_to_numpy(values), expected, rtol=1e-4)
        np.testing.assert_allclose(float(objective(labels, logits)), expected.mean(), rtol=1e-4)


def _linear():
    net = keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)])
    net.set_weights([np.random.default_rng(1).normal(size=w.shape) for w in net.get_weights()])
    return net


@pytest.mark.parametrize("objective", [TRADES(), MART()])
def test_training_step_minimises_the_objective(objective, batch):
    """The logged loss is the formula's at the attacked images; a small step lowers it."""
    x, y = batch
    net = _linear()
    attack = kr.attacks.PGD(kr.ThreatModel("Linf", 0.1), n_iter=2, random_start=True, returns="last")
    trainer = kr.AdversarialModel(net, attack, objective=objective)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(keras.optimizers.SGD(1e-3), loss, metrics=["accuracy"])
    logs = trainer.fit(x, y, batch_size=8, epochs=2, shuffle=False, validation_data=(x, y), verbose=0).history
    assert logs["loss"][1] < logs["loss"][0]
    value = ops.convert_to_numpy(loss(y, net(x)))
    np.testing.assert_allclose(logs["val_loss"][1], value, rtol=1e-5)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(objective))
    assert again.get_config() == objective.get_config()


def test_trades_attacks_the_divergence(batch):
    """The attack is led away from the clean prediction, whatever the label."""
    x, _ = batch
    net = _linear()
    labels = TRADES().attack_labels(net, ops.convert_to_tensor(x), None)
    np.testing.assert_allclose(ops.convert_to_numpy(labels), softmax(ops.convert_to_numpy(net(x)), 1), rtol=1e-5)


def test_trades_needs_a_random_start(model):
    with pytest.raises(ValueError, match="random_start=True with TRADES"):
        kr.AdversarialModel(model, kr.attacks.PGD(kr.ThreatModel("Linf", 0.1)), objective=TRADES())
