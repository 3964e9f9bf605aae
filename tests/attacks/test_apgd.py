"""APGD against an image-by-image implementation in numpy, and on published nets against the field's own."""

import numpy as np
import pytest
from keras import ops

import keras_robust as kr
from keras_robust.attacks.apgd import step_size_checks
from tests.attacks import reference

SHAPE = (4, 5, 3)
EPS = {"Linf": 0.06, "L2": 0.5, "L1": 2.5}
LOSSES = {"ce": reference.cross_entropy, "dlr": reference.dlr}


def _problem(count=6, seed=3):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-0.1, 1.1, (count, *SHAPE)).clip(0, 1).astype("float32")
    net = reference.Net(SHAPE, 5)
    hard = np.array([int(net.logits(image).argmax()) for image in x], "int32")
    first, second = (ops.convert_to_tensor(w.astype("float32")) for w in (net.first, net.second))

    def model(images):
        return ops.matmul(ops.tanh(ops.matmul(ops.reshape(images, (-1, int(np.prod(SHAPE)))) - 0.5, first)), second)

    soft = (0.7 * np.eye(5)[hard] + 0.3 * np.eye(5)[(hard + 2) % 5]).astype("float32")
    return net, model, x, {"hard": hard, "soft": soft}


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("n_iter", "labels"), [(1, "hard"), (2, "soft"), (5, "hard"), (12, "soft"), (40, "hard")])
def test_follows_the_publication_step_by_step(norm, loss, n_iter, labels):
    net, model, x, all_labels = _problem()
    y = all_labels[labels]
    # Beyond the third place DLR is constant: there the sign of its gradient is that of a rounding error.
    eps = EPS[norm] * (0.3 if loss == "dlr" else 1.0)
    attack = kr.attacks.APGD(kr.ThreatModel(norm, eps), n_iter=n_iter, loss=loss)
    x_adv = attack(model, x, y)
    expected = [reference.apgd(net, a, b, norm, eps, n_iter, LOSSES[loss]) for a, b in zip(x, y)]
    # Few steps agree point by point; later a sign or a checkpoint may turn on the last bit of a float.
    values = [LOSSES[loss](net.logits(a.astype("float64")), b)[0] for a, b in zip(x_adv, y)]
    np.testing.assert_allclose(
        values, [value for _, value, _ in expected], rtol=2e-3 if n_iter > 5 else 1e-4, atol=1e-4
    )
    if n_iter <= 5:
        np.testing.assert_allclose(x_adv, [point for point, _, _ in expected], atol=2e-5)


@pytest.mark.parametrize("norm", EPS)
def test_returns_the_misclassified_point(norm):
    net, model, x, labels = _problem(count=12)
    attack = kr.attacks.APGD(kr.ThreatModel(norm, 2 * EPS[norm]), n_iter=10, returns="misclassified")
    x_adv = attack(model, x, labels["hard"])
    expected = [reference.apgd(net, a, b, norm, 2 * EPS[norm], 10, share=0.2)[2] for a, b in zip(x, labels["hard"])]
    misclassified = [net.logits(a.astype("float64")).argmax() != b for a, b in zip(x_adv, labels["hard"])]
    assert misclassified == [point is not None for point in expected]
    assert any(misclassified)


@pytest.mark.parametrize("n_iter", [3, 8, 30])
@pytest.mark.parametrize("loss", LOSSES)
def test_shrinking_schedule_step_by_step(loss, n_iter):
    net, model, x, labels = _problem(count=12)
    y = labels["hard"]
    # Three times as large at first; for DLR see above.
    threat = kr.ThreatModel("L1", (0.1 if loss == "dlr" else 0.3) * EPS["L1"])
    attack = kr.attacks.APGD(threat, n_iter=n_iter, loss=loss, schedule="shrinking", returns="misclassified")
    expected = [reference.shrinking_apgd(net, a, b, threat.eps, n_iter, LOSSES[loss]) for a, b in zip(x, y)]
    points = [best if wrong is None else wrong for best, _, wrong in expected]
    x_adv = attack(model, x, y)
    agree = [np.abs(a - b).max() < 1e-4 for a, b in zip(x_adv, points)]
    # Of many steps one may turn on the last bit of a float.
    assert np.mean(agree) >= (1.0 if n_iter <= 8 and loss == "ce" else 0.8)
    misclassified = [net.logits(a.astype("float64")).argmax() != b for a, b in zip(x_adv, y)]
    assert misclassified == [wrong is not None for _, _, wrong in expected]


def test_shrinking_schedule_starts_in_the_largest_ball():
    _, model, x, labels = _problem()
    attack = kr.attacks.APGD(kr.ThreatModel("L1", 1.0), n_iter=8, schedule="shrinking", random_start=True)
    problem = attack.problem(model, ops.convert_to_tensor(x), ops.convert_to_tensor(labels["hard"]))
    problem = attack.attempt(problem, kr.random.example_keys(0, 0, ops.arange(6, dtype="int32")), 0, None)
    start = ops.convert_to_numpy(attack.begin(problem).x)
    np.testing.assert_allclose(np.abs(start.astype("float64") - x).sum((1, 2, 3)), 3.0, rtol=1e-5)


@pytest.mark.parametrize("n_iter", [3, 12])
@pytest.mark.parametrize("returns", ["misclassified", "highest_loss"])
def test_shrinking_schedule_finds_nothing_outside_of_the_ball(returns, n_iter):
    """A model that is wrong from a distance of 2 on, under radius 1: the random start, at 3, is no success."""
    x = np.full((4, *SHAPE), 0.5, "float32")

    def model(images):
        distance = ops.sum(ops.abs(images - 0.5), axis=(1, 2, 3))
        return ops.stack([0.0 * distance, distance - 2.0], axis=1)

    attack = kr.attacks.APGD(
        kr.ThreatModel("L1", 1.0), n_iter=n_iter, schedule="shrinking", random_start=True, returns=returns
    )
    problem = attack.problem(model, ops.convert_to_tensor(x), ops.zeros((4,), "int32"))
    problem = attack.attempt(problem, kr.random.example_keys(0, 0, ops.arange(4, dtype="int32")), 0, None)
    start = ops.convert_to_numpy(attack.begin(problem).x)
    assert (np.abs(start - x).sum((1, 2, 3)) > 2).all()
    found = attack.run(problem)
    assert ops.convert_to_numpy(found.correct).all()
    distances = np.abs(ops.convert_to_numpy(found.x) - x).sum((1, 2, 3))
    assert (distances <= 1 + 1e-5).all()
    # What it says of the point is true of it.
    np.testing.assert_allclose(
        ops.convert_to_numpy(found.loss), np.log1p(np.exp(distances - 2)), rtol=1e-4, err_msg="loss"
    )


def test_checkpoints_shrink_as_published():
    # n = 100: 22, then 3 fewer each, never below 6 (Croce & Hein 2020, section 3.1).
    ends = np.flatnonzero(step_size_checks(100)) + 1
    assert ends.tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
    assert [length for length in step_size_checks(100) if length] == [22, 19, 16, 13, 10, 7, 6, 6]
    assert step_size_checks(1) == [1]
    assert step_size_checks(3) == [1, 1, 1]


def test_is_deterministic_and_independent_of_the_batch():
    _, model, x, labels = _problem()
    attack = kr.attacks.APGD(kr.ThreatModel("L2", 0.5), n_iter=6)
    whole = attack(model, x, labels["hard"])
    np.testing.assert_array_equal(whole, attack(model, x, labels["hard"]))
    np.testing.assert_allclose(whole[:2], attack(model, x[:2], labels["hard"][:2]), atol=1e-5)


def test_restarts_only_help():
    net, model, x, labels = _problem(count=12)
    threat = kr.ThreatModel("L2", 2.0)

    def loss(n_restarts):
        attack = kr.attacks.APGD(threat, n_iter=1, random_start=True, n_restarts=n_restarts)
        x_adv = attack(model, x, labels["hard"]).astype("float64")
        return np.array([reference.cross_entropy(net.logits(a), b)[0] for a, b in zip(x_adv, labels["hard"])])

    assert (loss(3) >= loss(1) - 1e-5).all()
    assert (loss(3) > loss(1) + 1e-3).any()
