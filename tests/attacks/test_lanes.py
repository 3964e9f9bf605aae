"""Lanes: one compilation, and outcomes that do not depend on which other images share the batch."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

import keras_robust as kr
from keras_robust import backend, losses
from keras_robust.attacks.lanes import Lanes, lane_count
from keras_robust.attacks.versions import ATTACKS

SHAPE = (5, 4, 3)
THREATS = {"Linf": 0.02, "L2": 0.12, "L1": 0.5}
SETTINGS = {
    "apgd-ce": {"n_iter": 25, "n_restarts": 2},
    "apgd-t": {"n_iter": 25, "n_target_classes": 3},
    "fab-t": {"n_iter": 20, "n_target_classes": 2},
    "square": {"n_queries": 250},
}


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(3)
    inputs = keras.Input(SHAPE)
    h = keras.layers.Dense(24, activation="relu")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(5)(h))


@pytest.fixture(scope="module")
def data(net):
    x = np.random.default_rng(0).uniform(-0.2, 1.2, (40, *SHAPE)).clip(0, 1).astype("float32")
    logits = net(ops.convert_to_tensor(x))
    y = ops.argmax(logits, -1)
    targets = ops.convert_to_numpy(losses.targets(logits, y))
    return x, ops.convert_to_numpy(y).astype("int32"), targets, np.arange(40, dtype="int32")


@functools.cache
def _lanes(name, norm, net):
    kind, settings = ATTACKS[name]
    return Lanes(kind(kr.ThreatModel(norm, THREATS[norm]), **{**settings, **SETTINGS[name]}), net, stream=1)


def _run(lanes, data, rows, batch_size, net):
    def confirm(points, images, labels):
        return ops.convert_to_numpy(net(ops.convert_to_tensor(points))).argmax(1) != labels

    x, y, targets, index = (values[np.asarray(rows)] for values in data)
    return lanes.run(x, y, targets, index, batch_size, confirm)


exact = pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch rounds rows by their place in the batch")
every_attack = pytest.mark.parametrize("name", SETTINGS)
# All three norms where compiling is quick.
every_norm = pytest.mark.parametrize("norm", ["L2"] if keras.backend.backend() == "jax" else THREATS)


@exact
@every_attack
@every_norm
def test_outcome_does_not_depend_on_the_other_images(name, norm, net, data):
    lanes = _lanes(name, norm, net)
    whole = _run(lanes, data, range(40), 16, net)
    assert 0 < whole.broken.sum() < 40
    # Few images: their targets run side by side; other order, other lanes, other moments of refilling.
    for rows in (range(7), range(39, -1, -1), [5], [3, 8, 30, 31, 17]):
        part = _run(lanes, data, rows, 16, net)
        np.testing.assert_array_equal(part.broken, whole.broken[list(rows)])
        np.testing.assert_array_equal(part.x_adv, whole.x_adv[list(rows)])
        np.testing.assert_array_equal(part.evaluations, whole.evaluations[list(rows)])


@every_attack
def test_the_same_images_break_at_any_batch_size(name, net, data):
    lanes = _lanes(name, "L2", net)
    sizes = (1, 5, 16, 33, 64) if keras.backend.backend() == "tensorflow" else (5, 16)
    runs = [_run(lanes, data, range(40), size, net) for size in sizes]
    ties = [int((run.broken != runs[0].broken).sum()) for run in runs[1:]]
    assert sum(ties) <= 1, ties


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="compiles for long what does not differ there")
@every_attack
def test_successes_are_in_the_ball_and_misclassified(name, net, data):
    lanes = _lanes(name, "L1", net)
    attempts = _run(lanes, data, range(40), 16, net)
    x, y, *_ = data
    assert lanes.attack.threat.contains(attempts.x_adv, x).all()
    np.testing.assert_array_equal(attempts.x_adv[~attempts.broken], x[~attempts.broken])
    fooled = ops.convert_to_numpy(net(ops.convert_to_tensor(attempts.x_adv))).argmax(1) != y
    np.testing.assert_array_equal(fooled, attempts.broken)


def test_evaluations_are_counted_run_after_run(net, data):
    lanes = _lanes("apgd-t", "L2", net)
    attempts = _run(lanes, data, range(40), 16, net)
    per_run = 26  # 25 steps and the last point
    assert (attempts.evaluations[~attempts.broken] == 3 * per_run).all()
    assert (attempts.evaluations[attempts.broken] >= 1).all()
    assert (attempts.evaluations[attempts.broken] <= 3 * per_run).all()
    # More queries than Square has cannot be, and a success takes fewer.
    square = _run(_lanes("square", "Linf", net), data, range(40), 16, net)
    assert (square.evaluations[~square.broken] == 250).all()
    assert square.evaluations[square.broken].max() <= 250


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch runs eagerly")
@every_attack
def test_one_compilation_however_many_images_drop_out(name, net, data):
    kind, settings = ATTACKS[name]
    attack = kind(kr.ThreatModel("Linf", THREATS["Linf"]), **{**settings, **SETTINGS[name]})
    traced = []
    for method in ("begin", "iterate"):  # Python runs these when it traces, and only then
        function = getattr(attack, method)
        setattr(attack, method, lambda *a, f=function, m=method: (traced.append(m), f(*a))[1])
    lanes = Lanes(attack, net)
    for rows in (range(40), range(16), range(3)):
        _run(lanes, data, rows, 16, net)
    assert sorted(traced) == ["begin", "iterate"]


def test_a_success_that_is_not_confirmed_does_not_end_the_run(net, data):
    lanes = _lanes("apgd-t", "L2", net)
    x, y, targets, index = data
    attempts = lanes.run(x, y, targets, index, 16, lambda points, images, labels: np.zeros(len(points), bool))
    assert not attempts.broken.any()
    np.testing.assert_array_equal(attempts.x_adv, x)
    assert attempts.unconfirmed > 0
    assert (attempts.evaluations > 0).all()


def test_lane_count():
    assert [lane_count(n, 12) for n in (0, 1, 12, 13)] == [0, 12, 12, 12]
    if not backend.COMPILES_EACH_SHAPE:
        assert [lane_count(n, 250) for n in (0, 1, 16, 17, 100, 250, 1000)] == [0, 16, 16, 32, 112, 240, 240]
        assert lane_count(40, 17) == 16
    else:
        assert [lane_count(n, 250) for n in (0, 1, 250, 1000)] == [0, 250, 250, 250]
