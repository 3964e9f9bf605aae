"""Slots of a batch: one compilation, and outcomes that do not depend on which other images share the batch."""

import functools
import threading

import keras
import numpy as np
import pytest
from keras import ops

import keras_robust as kr
from keras_robust import backend, losses
from keras_robust.attacks.batching import Examples, SlotRunner, divide_cores, slot_count
from keras_robust.attacks.problem import Found
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
def _slots(name, norm, net):
    kind, settings = ATTACKS[name]
    return SlotRunner(kind(kr.ThreatModel(norm, THREATS[norm]), **{**settings, **SETTINGS[name]}), net, stream=1)


def _run(slots, data, rows, batch_size, net):
    examples = Examples(*data).take(np.asarray(rows))

    def confirm(points, rows):
        return ops.convert_to_numpy(net(ops.convert_to_tensor(points))).argmax(1) != examples.y[rows]

    return slots.run(examples, batch_size, confirm)


exact = pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch rounds rows by their place in the batch")
every_attack = pytest.mark.parametrize("name", SETTINGS)
# All three norms where compiling is quick.
every_norm = pytest.mark.parametrize("norm", ["L2"] if keras.backend.backend() == "jax" else THREATS)


@exact
@every_attack
@every_norm
def test_outcome_does_not_depend_on_the_other_images(name, norm, net, data):
    slots = _slots(name, norm, net)
    whole = _run(slots, data, range(40), 16, net)
    assert 0 < whole.misclassified.sum() < 40
    # Few images: their targets run side by side; other order, other slots, other moments of refilling.
    for rows in (range(7), range(39, -1, -1), [5], [3, 8, 30, 31, 17]):
        part = _run(slots, data, rows, 16, net)
        np.testing.assert_array_equal(part.misclassified, whole.misclassified[list(rows)])
        np.testing.assert_array_equal(part.x_adv, whole.x_adv[list(rows)])
        np.testing.assert_array_equal(part.evaluations, whole.evaluations[list(rows)])


@every_attack
def test_the_same_images_break_at_any_batch_size(name, net, data):
    slots = _slots(name, "L2", net)
    sizes = (1, 5, 16, 33, 64) if keras.backend.backend() == "tensorflow" else (5, 16)
    runs = [_run(slots, data, range(40), size, net) for size in sizes]
    ties = [int((run.misclassified != runs[0].misclassified).sum()) for run in runs[1:]]
    assert sum(ties) <= 1, ties


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="compiles for long what does not differ there")
@every_attack
def test_successes_are_in_the_ball_and_misclassified(name, net, data):
    slots = _slots(name, "L1", net)
    attempts = _run(slots, data, range(40), 16, net)
    x, y, *_ = data
    assert slots.attack.threat.contains(attempts.x_adv, x).all()
    np.testing.assert_array_equal(attempts.x_adv[~attempts.misclassified], x[~attempts.misclassified])
    misclassified = ops.convert_to_numpy(net(ops.convert_to_tensor(attempts.x_adv))).argmax(1) != y
    np.testing.assert_array_equal(misclassified, attempts.misclassified)


def test_evaluations_are_counted_run_after_run(net, data):
    slots = _slots("apgd-t", "L2", net)
    attempts = _run(slots, data, range(40), 16, net)
    per_run = 26  # 25 steps and the last point
    assert (attempts.evaluations[~attempts.misclassified] == 3 * per_run).all()
    assert (attempts.evaluations[attempts.misclassified] >= 1).all()
    assert (attempts.evaluations[attempts.misclassified] <= 3 * per_run).all()
    # More queries than Square has cannot be, and a success takes fewer.
    square = _run(_slots("square", "Linf", net), data, range(40), 16, net)
    assert (square.evaluations[~square.misclassified] == 250).all()
    assert square.evaluations[square.misclassified].max() <= 250


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch runs eagerly")
@every_attack
def test_one_compilation_however_many_images_drop_out(name, net, data):
    kind, settings = ATTACKS[name]
    attack = kind(kr.ThreatModel("Linf", THREATS["Linf"]), **{**settings, **SETTINGS[name], "seed": 1})
    traced = []
    for method in ("begin", "iterate"):  # Python runs these when it traces, and only then
        function = getattr(attack, method)
        setattr(attack, method, lambda *a, f=function, m=method: (traced.append(m), f(*a))[1])
    slots = SlotRunner(attack, net)
    for rows in (range(40), range(16), range(3)):
        _run(slots, data, rows, 16, net)
    # Nor is another radius compiled anew.
    wider = SlotRunner(attack.with_threat(kr.ThreatModel("Linf", 2 * THREATS["Linf"])), net)
    assert (
        _run(wider, data, range(40), 16, net).misclassified.sum()
        > _run(slots, data, range(40), 16, net).misclassified.sum()
    )
    assert sorted(traced) == ["begin", "iterate"]


def test_an_attack_of_a_users_own_meets_its_own_radius(net, data):
    """It may look at its threat model, which a compilation shared between radii would freeze."""

    class FarthestCorner(kr.attacks.Attack):
        def run(self, problem):
            x = ops.clip(problem.x + self.threat.eps, 0.0, 1.0)
            return Found(x, *problem.value(x))

    images = ops.convert_to_tensor(data[0])
    for eps in (0.05, 0.6):
        attack = FarthestCorner(kr.ThreatModel("Linf", eps), returns="misclassified")
        moved = np.clip(data[0] + np.float32(eps), 0, 1)
        expected = ops.convert_to_numpy(net(ops.convert_to_tensor(moved))).argmax(1) != data[1]
        np.testing.assert_array_equal(
            _run(SlotRunner(attack, net), data, range(len(images)), 16, net).misclassified, expected
        )


@exact
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="threads are for TensorFlow's CPU kernels")
@every_attack
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(name, threads, net, data, monkeypatch):
    monkeypatch.setattr(backend, "concurrent_calls", lambda: threads)
    kind, settings = ATTACKS[name]
    attack = kind(kr.ThreatModel("L2", THREATS["L2"]), **{**settings, **SETTINGS[name]})
    running, most, alone = set(), [], SlotRunner(attack, net, stream=1)
    many = SlotRunner(attack, net, stream=1, side_by_side=True)
    run = many._run

    def observed(*arguments):
        running.add(threading.get_ident())
        most.append(len(running))
        return run(*arguments)

    monkeypatch.setattr(many, "_run", observed)
    expected = _run(alone, data, range(40), 64 * threads, net)
    for _ in range(2):
        attempts = _run(many, data, range(40), 64 * threads, net)
        np.testing.assert_array_equal(attempts.misclassified, expected.misclassified)
        np.testing.assert_array_equal(attempts.x_adv, expected.x_adv)
        np.testing.assert_array_equal(attempts.evaluations, expected.evaluations)
    assert max(most) > 1
    # Two images, or too small a batch: no thread has nothing to do.
    few = _run(many, data, [3, 8], 64 * threads, net)
    np.testing.assert_array_equal(few.misclassified, expected.misclassified[[3, 8]])
    most.clear()
    np.testing.assert_array_equal(_run(many, data, range(40), 64, net).misclassified, expected.misclassified)
    assert len(most) == 1


def test_an_error_in_a_thread_is_raised(net, data, monkeypatch):
    monkeypatch.setattr(backend, "concurrent_calls", lambda: 2)
    kind, settings = ATTACKS["apgd-t"]
    attack = kind(kr.ThreatModel("L2", THREATS["L2"]), **{**settings, **SETTINGS["apgd-t"]})

    def confirm(points, rows):
        raise ArithmeticError("from the thread")

    with pytest.raises(ArithmeticError, match="from the thread"):
        SlotRunner(attack, net, side_by_side=True).run(Examples(*data), 128, confirm)


def test_a_success_that_is_not_confirmed_does_not_end_the_run(net, data):
    slots = _slots("apgd-t", "L2", net)
    attempts = slots.run(Examples(*data), 16, lambda points, rows: np.zeros(len(points), bool))
    assert not attempts.misclassified.any()
    np.testing.assert_array_equal(attempts.x_adv, data[0])
    assert attempts.unconfirmed > 0
    assert (attempts.evaluations > 0).all()


def test_lane_count():
    assert [slot_count(n, 12) for n in (0, 1, 12, 13)] == [0, 12, 12, 12]
    if not backend.COMPILES_EACH_SHAPE:
        assert [slot_count(n, 250) for n in (0, 1, 16, 17, 100, 250, 1000)] == [0, 16, 16, 32, 112, 240, 240]
        assert slot_count(40, 17) == 16
    else:
        assert [slot_count(n, 250) for n in (0, 1, 250, 1000)] == [0, 250, 250, 250]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="threads are for TensorFlow's CPU kernels")
def test_calls_side_by_side(monkeypatch):
    """As many as there are cores, or as the user lets TensorFlow run at a time."""
    for name in ("TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(backend.active, "available_cores", lambda: 6)
    parts, tf = [], pytest.importorskip("tensorflow")
    monkeypatch.setattr(tf.config.threading, "get_inter_op_parallelism_threads", lambda: 0)
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", parts.append)
    assert backend.concurrent_calls() == 6
    for batch_size in (127, 128, 250, 10_000):
        divide_cores(batch_size)
    assert parts == [3, 2, 1]
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "4")
    divide_cores(250)
    assert parts == [3, 2, 1]
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "2")
    assert backend.concurrent_calls() == 2
    monkeypatch.setattr(tf.config.threading, "get_inter_op_parallelism_threads", lambda: 1)
    assert backend.concurrent_calls() == 1
