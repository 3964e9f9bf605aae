"""Models and settings that are not as attacks expect them: refused in words, or taken as they are."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_robust as kr
from keras_robust.attacks import APGD, FAB, PGD, AutoAttack, Square

RNG = np.random.default_rng(0)
X, Y = RNG.random((4, 8, 8, 3), "float32"), np.arange(4) % 3
WEIGHTS = RNG.normal(size=(192, 5)).astype("float32")
THREATS = [kr.ThreatModel("Linf", 0.1), kr.ThreatModel("L2", 0.5), kr.ThreatModel("L1", 4.0)]
ATTACKS = {
    "pgd": lambda threat: PGD(threat, n_iter=2),
    "apgd": lambda threat: APGD(threat, n_iter=2, random_start=True, n_restarts=2),
    "fab": lambda threat: FAB(threat, n_iter=2),
    "square": lambda threat: Square(threat, n_queries=4),
    "autoattack": lambda threat: AutoAttack(threat, "short"),
}


def linear(x):
    return ops.matmul(ops.reshape(x, (ops.shape(x)[0], -1)), ops.convert_to_tensor(WEIGHTS))


WRONG = {
    "one row of logits per image": lambda x: ops.concatenate([linear(x), linear(x)]),
    "received dtype int32": lambda x: ops.cast(linear(x), "int32"),
    "received dtype bool": lambda x: linear(x) > 0,
    "logits of shape": lambda x: linear(x)[:, None],
    "its output is": lambda x: {"logits": linear(x)},
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("message", WRONG)
def test_what_is_no_batch_of_logits_is_refused(attack, message):
    with pytest.raises(ValueError, match=rf"model must .*{message}"):
        ATTACKS[attack](THREATS[0])(WRONG[message], X, Y)


@pytest.fixture
def double_floatx():
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no float64 unless it is told to")
@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
@pytest.mark.parametrize("attack", ATTACKS)
def test_floatx_does_not_matter(attack, threat, double_floatx):
    """Attacks compute in float32 whatever Keras' default is: the same images, of the same dtype."""
    theirs = ATTACKS[attack](threat)(linear, X, Y)
    keras.config.set_floatx("float32")
    ours = ATTACKS[attack](threat)(linear, X, Y)
    if attack == "autoattack":
        ours, theirs = ours.x_adv, theirs.x_adv
    ours, theirs = ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs)
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no float64 unless it is told to")
def test_a_model_in_float64(double_floatx):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(inputs)))
    assert AutoAttack(THREATS[0], "short")(model, X, Y).robust_accuracy == 0.0


@pytest.mark.parametrize("value", [1, "yes", None, [True]])
def test_fab_is_targeted_or_not(value):
    with pytest.raises(ValueError, match="targeted must be True or False"):
        FAB(THREATS[0], targeted=value)


@pytest.mark.parametrize("value", [10**400, -(10**400), float("inf"), float("nan"), 2, 0, "1", True])
def test_share_of_the_first_squares(value):
    with pytest.raises(ValueError, match="p_init must"):
        Square(THREATS[0], p_init=value)
