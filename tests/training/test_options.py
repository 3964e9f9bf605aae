"""AdversarialModel's moving averages, augmentation, choice among attacks, diagnostics, clean training."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_robust as kr

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy
SOFT_CROSS_ENTROPY = keras.losses.CategoricalCrossentropy


def _attack(eps=0.1, **options):
    return kr.attacks.APGD(kr.ThreatModel("Linf", eps), n_iter=2, **options)


def _trainer(model, attack, accumulate=None, rate=0.05, **options):
    trainer = kr.AdversarialModel(model, attack, **options)
    optimizer = keras.optimizers.SGD(rate, gradient_accumulation_steps=accumulate)
    trainer.compile(optimizer, CROSS_ENTROPY(from_logits=True))
    return trainer


@pytest.mark.parametrize("accumulate", [None, 2])
def test_averages_follow_every_update(accumulate, batch, model):
    """Batch-norm statistics too, from the weights at the start; frozen within a window of accumulation."""
    x, y = batch
    trainer = _trainer(model, _attack(), accumulate, ema_decay=0.8)
    tracked = [ops.convert_to_numpy(w).copy() for w in model.weights if "float" in w.dtype]
    assert len(tracked) == 8  # two kernels, two biases, four of batch norm
    for step in range(4):
        trainer.fit(x, y, batch_size=8, verbose=0)
        now = [ops.convert_to_numpy(w) for w in model.weights if "float" in w.dtype]
        if accumulate is None or step % 2:
            tracked = [0.8 * a + 0.2 * w for a, w in zip(tracked, now)]
        for average, expected in zip(trainer.weight_averages, tracked):
            np.testing.assert_allclose(ops.convert_to_numpy(average), expected, rtol=1e-5, atol=1e-6)
    raw = model.get_weights()
    with trainer.averaged_weights() as averaged:
        inside = [ops.convert_to_numpy(w).copy() for w in averaged.weights if "float" in w.dtype]
    for a, b in zip(inside, tracked):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(raw, model.get_weights()):
        np.testing.assert_array_equal(a, b)
    assert np.isfinite(trainer.evaluate(x, y, verbose=0)).all()


def test_augmentation_runs_before_the_attack(batch):
    """An augmentation that replaces the images: training sees its output, keyed by update and position."""
    x, y = batch
    soft = np.eye(5, dtype="float32")[y]
    seen = []

    def shuffle(images, labels, keys):
        seen.append(keys)
        return ops.flip(images, 0) * 0.5, ops.flip(labels, 0)

    weights = []
    for given, augmentation in (((x, soft), shuffle), ((x[::-1] * 0.5, soft[::-1]), None)):
        keras.utils.set_random_seed(0)
        net = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(5)])
        trainer = kr.AdversarialModel(net, _attack(), augmentation=augmentation)
        trainer.compile(keras.optimizers.SGD(0.1), SOFT_CROSS_ENTROPY(from_logits=True))
        trainer.fit(*given, batch_size=8, shuffle=False, verbose=0)
        weights.append(net.get_weights())
    assert len(seen) >= 1
    for a, b in zip(*weights):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_draws_one_of_several_attacks_per_update(batch):
    """At frozen weights the logged loss is that under the one or the other, and both come up."""
    x, y = batch
    net = keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)])
    attacks = [_attack(0.2), kr.attacks.APGD(kr.ThreatModel("L1", 3.0), n_iter=2)]
    trainer = _trainer(net, attacks, rate=0.0)
    losses = trainer.fit(x, y, batch_size=8, epochs=12, shuffle=False, verbose=0).history["loss"]
    entropy = CROSS_ENTROPY(from_logits=True)
    expected = [float(entropy(y, net.predict(attack(net, x, y), verbose=0))) for attack in attacks]
    which = [int(np.argmin([abs(loss - value) for value in expected])) for loss in losses]
    np.testing.assert_allclose(losses, [expected[i] for i in which], rtol=1e-4)
    assert set(which) == {0, 1}
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(trainer))
    assert [a.get_config() for a in again.attacks] == [a.get_config() for a in attacks]


def test_diagnostics(batch):
    x, y = batch
    x[:2] = 0.0  # max(0, w x) with w < 0 has no gradient anywhere, nor has black
    net = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.ReLU(), keras.layers.Dense(5)])
    trainer = _trainer(net, _attack(), rate=0.0, diagnostics=True)
    logs = trainer.fit(x, y, batch_size=8, verbose=0).history
    entropy = CROSS_ENTROPY(from_logits=True)
    gain = logs["loss"][0] - float(entropy(y, net.predict(x, verbose=0)))
    assert logs["attack_gain"][0] == pytest.approx(gain, rel=1e-4)
    assert logs["zero_gradients"][0] == pytest.approx(0.25)


def test_clean_training_is_keras_own(batch):
    x, y = batch
    weights = []
    for adversarial in (True, False):
        keras.utils.set_random_seed(0)
        net = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(5)])
        network = kr.AdversarialModel(net, None, validation_attack=_attack()) if adversarial else net
        network.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY(from_logits=True))
        network.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        weights.append(net.get_weights())
    for a, b in zip(*weights):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_noise_fgsm_leaves_the_ball_in_training_only(batch, model):
    x, y = batch
    attack = kr.attacks.NFGSM(kr.ThreatModel("Linf", 0.05))
    assert np.abs(attack(model, x, y) - x).max() <= 0.05 + 1e-6
    keys = kr.random.example_keys(0, 0, ops.arange(8, dtype="int32"))
    x_adv, loss = attack.perturb(model, ops.convert_to_tensor(x), ops.convert_to_tensor(y), keys)
    change = np.abs(ops.convert_to_numpy(x_adv) - x).max(axis=(1, 2, 3))
    assert loss is None
    assert (change > 0.1).all()  # uniform noise up to 0.1, and a step of 0.05
    assert (change <= 0.15 + 1e-6).all()
    trainer = _trainer(model, attack, diagnostics=True)
    assert np.isfinite(trainer.fit(x, y, verbose=0).history["loss"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ema_decay": 1.0}, r"ema_decay must be None or in \[0, 1\); received 1.0"),
        ({"objective": "trades"}, "objective must be one of"),
        ({"augmentation": "heavy"}, "augmentation must be callable"),
    ],
)
def test_refused(options, message, model):
    with pytest.raises(ValueError, match=message):
        kr.AdversarialModel(model, _attack(), **options)
    with pytest.raises(ValueError, match="validation_attack must be an Attack"):
        kr.AdversarialModel(model, None)
    with (
        pytest.raises(ValueError, match="ema_decay must be given"),
        kr.AdversarialModel(model, _attack()).averaged_weights(),
    ):
        pass
