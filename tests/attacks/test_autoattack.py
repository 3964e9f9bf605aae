"""AutoAttack: what the result holds, on models of any kind; the settings of each version."""

import gc
import weakref
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops

import keras_robust as kr
from keras_robust import backend
from keras_robust.attacks import base, versions
from keras_robust.attacks.versions import ensemble
from keras_robust.norms import NORMS

SHAPE = (5, 4, 1)
slow_on_jax = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="compiles for long what does not differ there"
)


def _net(classes=5, seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(SHAPE)
    h = keras.layers.Dense(16, activation="tanh")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(classes)(h))


@pytest.fixture
def net():
    return _net()


@pytest.fixture
def images(net):
    x = np.random.default_rng(0).uniform(size=(20, *SHAPE)).astype("float32")
    y = ops.convert_to_numpy(net(ops.convert_to_tensor(x))).argmax(1).astype("int32")
    y[::5] = (y[::5] + 1) % 5
    return x, y


@pytest.fixture
def quick(monkeypatch):
    """The same attacks with fewer iterations."""
    few = {"apgd-ce": 12, "apgd-dlr": 12, "apgd-t": 12, "fab": 6, "fab-t": 6, "apgd-ce-first": 12, "apgd-t-first": 12}
    changed = {
        name: (kind, {**settings, "n_iter": few[name]} if name in few else {**settings, "n_queries": 110})
        for name, (kind, settings) in versions.ATTACKS.items()
    }
    for name in changed:
        monkeypatch.setitem(versions.ATTACKS, name, changed[name])


def test_result(net, images, quick):
    x, y = images
    threat = kr.ThreatModel("Linf", 0.05)
    result = kr.attacks.AutoAttack(threat, batch_size=16)(net, x, y)
    assert list(result.accuracy_after) == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"]
    accuracies = list(result.accuracy_after.values())
    assert accuracies == sorted(accuracies, reverse=True)
    assert result.clean_accuracy == 0.8
    assert 0 < result.robust_accuracy < 0.8
    # The figures are those of the images that are handed out.
    wrong = ops.convert_to_numpy(net(ops.convert_to_tensor(result.x_adv))).argmax(1) != y
    assert 1 - wrong.mean() == pytest.approx(result.robust_accuracy)
    np.testing.assert_array_equal(wrong, result.misclassified_by != "")
    np.testing.assert_array_equal(result.misclassified_by[::5], "clean")
    assert set(result.misclassified_by) <= {"", *result.accuracy_after}
    untouched = (result.misclassified_by == "") | (result.misclassified_by == "clean")
    np.testing.assert_array_equal(result.x_adv[untouched], x[untouched])
    assert threat.contains(result.x_adv, x).all()
    np.testing.assert_allclose(result.perturbation_norm, np.abs(result.x_adv.astype("float64") - x).max((1, 2, 3)))
    assert (result.perturbation_norm[untouched] == 0).all()
    for before, name in zip(result.correct, list(result.correct)[1:]):
        ran = result.evaluations[name] > 0
        np.testing.assert_array_equal(ran, result.correct[before])
    assert set(result.unconfirmed.values()) == {0}
    assert result.x_adv.dtype == np.float32
    assert [warning.split(":")[0] for warning in result.warnings] == ["No better than one answer for all"]  # 60 %


def test_same_seed_same_bits_other_seed_other_points(net, images, quick):
    x, y = images

    def run(seed=0, rows=slice(None)):
        attack = kr.attacks.AutoAttack(kr.ThreatModel("L2", 0.3), version="short", batch_size=4, seed=seed)
        return attack(net, x[rows], y[rows])

    first = run()
    np.testing.assert_array_equal(run().x_adv, first.x_adv)
    assert (run(seed=1).x_adv != first.x_adv).any()
    if keras.backend.backend() != "torch":  # which rounds rows by their place in the batch
        np.testing.assert_array_equal(run(rows=slice(0, 11)).x_adv, first.x_adv[:11])


@slow_on_jax
def test_tensors_and_lists_of_labels(net, images, quick):
    x, y = images
    attack = kr.attacks.AutoAttack(kr.ThreatModel("Linf", 0.05), version="short", batch_size=20)
    expected = attack(net, x, y)
    result = attack(net, ops.convert_to_tensor(x), ops.convert_to_tensor(y))
    np.testing.assert_array_equal(result.x_adv, expected.x_adv)
    one_hot = attack(net, x, np.eye(5, dtype="float32")[y])
    np.testing.assert_array_equal(one_hot.x_adv, expected.x_adv)


@pytest.mark.once
def test_one_image_and_none_left(net, images, quick):
    x, y = images
    result = kr.attacks.AutoAttack(kr.ThreatModel("Linf", 1.0), version="short")(net, x[1:2], y[1:2])
    assert result.robust_accuracy == 0
    result = kr.attacks.AutoAttack(kr.ThreatModel("Linf", 1.0), version="short")(net, x[:1], y[:1])
    assert result.clean_accuracy == result.robust_accuracy == 0
    assert result.misclassified_by.tolist() == ["clean"]


@pytest.mark.once
def test_eps_zero_breaks_nothing(net, images, quick):
    x, y = images
    result = kr.attacks.AutoAttack(kr.ThreatModel("L2", 0.0), batch_size=20)(net, x, y)
    assert result.robust_accuracy == result.clean_accuracy
    np.testing.assert_array_equal(result.x_adv, x)


def test_follows_new_weights(net, images, quick):
    x, y = images
    attack = kr.attacks.AutoAttack(kr.ThreatModel("Linf", 0.05), version="short", batch_size=20)
    first = attack(net, x, y)
    net.layers[-1].set_weights([-weight for weight in net.layers[-1].get_weights()])
    second = attack(net, x, y)
    fresh = kr.attacks.AutoAttack(kr.ThreatModel("Linf", 0.05), version="short", batch_size=20)(net, x, y)
    assert second.accuracy_after == fresh.accuracy_after != first.accuracy_after
    np.testing.assert_array_equal(second.x_adv, fresh.x_adv)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="threads are for TensorFlow's CPU kernels")
def test_only_keras_models_are_shared_by_threads(net, images, monkeypatch):
    """Of other layers, an interpreter of a file for one, nobody knows whether two threads may call them."""

    class Interpreter(keras.layers.Layer):
        def call(self, x):
            return net(x)

    class Random(keras.Model):
        def call(self, x):
            return net(x) + keras.random.normal((1,), seed=draws)

    draws, made = keras.random.SeedGenerator(0), []

    class Watched(base.SlotRunner):
        def __init__(self, attack, model, stream, trace, side_by_side, aims):
            made.append(side_by_side)
            super().__init__(attack, model, stream, trace, side_by_side, aims)

    monkeypatch.setattr(base, "SlotRunner", Watched)
    monkeypatch.setattr(backend, "concurrent_calls", lambda: 2)
    x, y = images
    settings = kr.attacks.AutoAttack(kr.ThreatModel("Linf", 0.0), "short", 32)
    for model in (net, Interpreter(), Random(), lambda x: net(x)):
        attacks = settings.suite(model, 5)
        next(attacks.stages(x, y, attacks.logits(x)))
    assert made == [True, False, False, False]


def test_an_evaluated_model_is_not_kept(images, quick):
    x, y = images
    model = _net()
    kr.attacks.AutoAttack(kr.ThreatModel("Linf", 0.05), "short", 32)(model, x, y)
    kept = weakref.ref(model)
    del model
    gc.collect()
    assert kept() is None


def test_any_callable_is_attacked_with_what_it_refers_to_now(images, quick):
    x, y = images
    weights = {"kernel": np.random.default_rng(0).normal(size=(20, 5)).astype("float32")}

    def model(inputs):
        return ops.matmul(ops.reshape(inputs, (-1, 20)) - 0.5, ops.convert_to_tensor(weights["kernel"]))

    attack = kr.attacks.AutoAttack(kr.ThreatModel("Linf", 0.05), version="short", batch_size=20)
    for _ in range(2):
        result = attack(model, x, y)
        logits = (result.x_adv.reshape(20, -1) - 0.5) @ weights["kernel"]
        assert (logits.argmax(1) == y).mean() == pytest.approx(result.robust_accuracy)
        weights["kernel"] = -weights["kernel"]


@slow_on_jax
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_finds_every_adversarial_point_of_a_linear_model(norm, quick):
    """There the worst case is known: robust accuracy must equal it, and never lie below it."""
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(20, 4)).astype("float32")
    x = rng.uniform(0.3, 0.7, size=(40, *SHAPE)).astype("float32")
    margins = (x.reshape(40, -1) - 0.5) @ kernel
    y = margins.argmax(1).astype("int32")
    dual = {"Linf": 1, "L2": 2}[norm]
    distances = np.array(
        [
            min(
                (margins[i, y[i]] - margins[i, c]) / np.linalg.norm(kernel[:, y[i]] - kernel[:, c], dual)
                for c in range(4)
                if c != y[i]
            )
            for i in range(40)
        ]
    )
    eps = float(np.median(distances))
    inputs = keras.Input(SHAPE)
    dense = keras.layers.Dense(4, use_bias=False)
    net = keras.Model(inputs, dense(keras.layers.Flatten()(keras.layers.Rescaling(1.0, -0.5)(inputs))))
    dense.set_weights([kernel])
    result = kr.attacks.AutoAttack(kr.ThreatModel(norm, eps), batch_size=40)(net, x, y)
    certified, breakable = distances > eps * (1 + 1e-4), distances < eps * (1 - 1e-2)
    broken = result.misclassified_by != ""
    assert not broken[certified].any()
    assert broken[breakable].all()
    assert breakable.sum() > 10


@slow_on_jax
def test_models_in_16_bits_are_attacked_in_float32(images, quick):
    keras.config.set_dtype_policy("mixed_bfloat16")
    net = _net()
    keras.config.set_dtype_policy("float32")
    wide = _net()
    wide.set_weights(net.get_weights())
    x, y = images
    attack = kr.attacks.AutoAttack(kr.ThreatModel("Linf", 0.05), version="short", batch_size=20)
    attack(net, x, y)  # from here on there is a copy in float32
    weights = [-weight for weight in wide.layers[-1].get_weights()]
    for each in (net, wide):
        each.layers[-1].set_weights(weights)
    np.testing.assert_array_equal(attack(net, x, y).x_adv, attack(wide, x, y).x_adv)


@pytest.mark.once
@pytest.mark.parametrize("version", ["plus", "rand"])
def test_other_versions(version, net, images, quick):
    x, y = images
    result = kr.attacks.AutoAttack(kr.ThreatModel("L2", 0.3), version=version, batch_size=20)(net, x[:12], y[:12])
    names = {"plus": ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"], "rand": ["apgd-ce", "apgd-dlr"]}
    assert list(result.accuracy_after) == ["clean", *names[version]]
    assert result.robust_accuracy < result.clean_accuracy


@pytest.mark.once
def test_what_fast_finds_standard_finds(net, images, quick, monkeypatch):
    x, y = images
    short = {"apgd-ce": {}, "apgd-t": {}}
    monkeypatch.setitem(versions.VERSIONS, "standard", short)
    monkeypatch.setitem(versions.VERSIONS, "fast", {"apgd-ce-first": {}, "apgd-t-first": {}, **short})
    results = {}
    for nearest in (None, 0.0, 0.3, 1.0):
        if nearest is not None:
            plan = replace(versions.PLANS["fast"], nearest=nearest, probability=0.3)
            monkeypatch.setitem(versions.PLANS, "fast", plan)
        version = "standard" if nearest is None else "fast"
        results[nearest] = kr.attacks.AutoAttack(kr.ThreatModel("Linf", 0.03), version, batch_size=20)(net, x, y)
    standard = results.pop(None)
    assert 0.2 < standard.robust_accuracy < 0.7
    for nearest, fast in results.items():
        drawn = fast.sample.drawn
        assert drawn.all() == (nearest == 1.0)
        np.testing.assert_array_equal(fast.is_unbroken[drawn], standard.is_robust[drawn])
        low, high = fast.robust.interval
        assert low <= standard.robust_accuracy <= high
        assert (fast.robust.value == standard.robust_accuracy) or nearest < 1
        assert "estimated to be robust ~" in repr(fast)


@pytest.mark.once
@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes(classes, quick):
    net = _net(classes)
    x = np.random.default_rng(0).uniform(size=(10, *SHAPE)).astype("float32")
    y = ops.convert_to_numpy(net(ops.convert_to_tensor(x))).argmax(1)
    attack = kr.attacks.AutoAttack(kr.ThreatModel("Linf", 0.3), version="short", batch_size=10)
    with pytest.warns(UserWarning, match=f"'targeted-dlr' needs 4 classes, the model has {classes}"):
        result = attack(net, x, y)
    assert result.accuracy_after["apgd-t"] < 1
    assert len(result.warnings) == 1


def test_versions_as_published():
    """Croce & Hein 2020, section 5, and 2021, section 5: iterations, restarts, targets, queries."""
    for norm in ("Linf", "L2", "L1"):
        attacks = ensemble(kr.ThreatModel(norm, 1.0), "standard")
        assert list(attacks) == ["apgd-ce", "apgd-t", "fab-t", "square"]
        ce, targeted, fab, square = attacks.values()
        assert ce.n_iter == targeted.n_iter == fab.n_iter == 100
        assert ce.n_restarts == (5 if norm == "L1" else 1)
        assert targeted.n_target_classes == (5 if norm == "L1" else 9)
        assert targeted.n_restarts == fab.n_restarts == square.n_restarts == 1
        assert fab.n_target_classes == 9
        assert ce.schedule == targeted.schedule == ("shrinking" if norm == "L1" else "constant")
        assert ce.random_start
        assert ce.returns == targeted.returns == "misclassified"
        assert (square.n_queries, square.p_init) == (5000, 0.8)
        assert list(ensemble(kr.ThreatModel(norm, 1.0), "short")) == ["apgd-ce", "apgd-t"]
        fast, standard = (ensemble(kr.ThreatModel(norm, 1.0), version) for version in ("fast", "standard"))
        assert list(fast)[2:] == list(standard)
        for name in standard:
            assert fast[name].get_config() == standard[name].get_config()
        for first, whole in versions.PLANS["fast"].beginnings.items():
            fewer = {"n_restarts": 1, "n_target_classes": fast[first].n_target_classes}
            assert fast[first].arguments() == {**standard[whole].arguments(), **fewer}
        plus = ensemble(kr.ThreatModel(norm, 1.0), "plus")
        assert [plus[name].n_restarts for name in ("apgd-ce", "apgd-dlr", "fab")] == [5, 5, 5]
        assert not plus["fab"].targeted
        assert plus["apgd-t"].n_target_classes == 9
        random = ensemble(kr.ThreatModel(norm, 1.0), "rand")
        assert [(a.eot_iter, a.n_restarts) for a in random.values()] == [(20, 1), (20, 1)]


def test_settings_are_those_of_the_reference_implementation():
    module = pytest.importorskip("pyautoattack.autoattack", exc_type=ImportError)
    for norm in ("Linf", "L2", "L1"):
        for version in ("standard", "plus", "rand"):
            theirs = module.AutoAttack(lambda x: x, norm=norm, eps=0.1, version=version)
            ours = ensemble(kr.ThreatModel(norm, 0.1), version)
            assert list(ours) == theirs.attacks_to_run
            for name in ("apgd-ce", "apgd-dlr"):
                if name in ours:
                    assert ours[name].n_iter == theirs.apgd.n_iter
                    assert ours[name].n_restarts == theirs.apgd.n_restarts or (norm, version) == ("L1", "rand")
                    assert ours[name].eot_iter == theirs.apgd.eot_iter
            if version != "rand":
                assert ours["apgd-t"].n_target_classes == theirs.apgd_targeted.n_target_classes
                assert ours["apgd-t"].n_restarts == theirs.apgd_targeted.n_restarts
                assert ours["apgd-t"].n_iter == theirs.apgd_targeted.n_iter
                assert ours["fab-t"].n_iter == theirs.fab.n_iter
                assert ours["fab-t"].n_target_classes == theirs.fab.n_target_classes
                assert ours["square"].n_queries == theirs.square.n_queries
                assert ours["square"].p_init == theirs.square.p_init
                assert ours["square"].n_restarts == theirs.square.n_restarts
            if version == "standard":  # with "plus" under L1 the reference leaves the large radii out
                large = ours["apgd-ce"].schedule == ours["apgd-t"].schedule == "shrinking"
                assert large == theirs.apgd.use_largereps == theirs.apgd_targeted.use_largereps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "full"}, "version must be one of 'standard', 'short', 'plus', 'rand', 'fast'; received 'full'"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1; received 0"),
        ({"seed": -1}, "seed must be an integer >= 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        kr.attacks.AutoAttack(kr.ThreatModel("Linf", 0.1), **options)


def test_bad_input_is_refused(net, images):
    x, y = images
    attack = kr.attacks.AutoAttack(kr.ThreatModel("Linf", 0.1))
    with pytest.raises(ValueError, match="x must be pixels in"):
        attack(net, x * 255, y)
    with pytest.raises(ValueError, match="one label per image"):
        attack(net, x, y[:3])
    with pytest.raises(ValueError, match="threat must be a ThreatModel"):
        kr.attacks.AutoAttack("Linf")


def test_perturbation_norm():
    x = np.zeros((1, 1, 2, 1), "float32")
    for norm, size in (("Linf", 4.0), ("L2", 5.0), ("L1", 7.0)):
        assert NORMS[norm].measure(x + np.array([3.0, -4.0], "float32").reshape(1, 1, 2, 1), x) == [size]
