"""Losses against their formulas, written out in float64 example by example."""

import numpy as np
import pytest
from keras import ops

from keras_robust import backend, losses

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 5)).astype("float32") * 3
HARD = np.array([0, 1, 2, 3, 4, int(LOGITS[5].argmax())])
SOFT = RNG.dirichlet(np.ones(5), 6).astype("float32")


def _numpy(function, *arguments):
    return ops.convert_to_numpy(function(*(ops.convert_to_tensor(a) for a in arguments)))


def _log_softmax(z):
    return z - np.log(np.exp(z.astype("float64")).sum())


def test_cross_entropy():
    hard = [-_log_softmax(z)[y] for z, y in zip(LOGITS, HARD)]
    soft = [-(q * _log_softmax(z)).sum() for z, q in zip(LOGITS, SOFT)]
    np.testing.assert_allclose(_numpy(losses.cross_entropy, LOGITS, HARD), hard, rtol=1e-5)
    np.testing.assert_allclose(_numpy(losses.cross_entropy, LOGITS, SOFT), soft, rtol=1e-5)


@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_keeps_its_digits_where_the_model_is_sure(soft):
    """Loss and gradient to a relative 1e-5 at margins where 1 - softmax is below the rounding of float32."""
    logits = np.array([[40.0, 1.0, 0.5, -3.0], [2.0, 25.0, 4.0, 3.0], [0.0, 0.0, 60.0, 1.0]], "float32")
    y = np.array([0, 1, 2])
    labels = ops.convert_to_tensor(np.eye(4, dtype="float32")[y] if soft else y)
    function = lambda z: (losses.cross_entropy(z, labels), labels)  # noqa: E731
    values, _, gradient = (
        ops.convert_to_numpy(t) for t in backend.input_gradient(function, ops.convert_to_tensor(logits))
    )
    ratios = np.exp(logits.astype("float64") - logits[np.arange(3), y][:, None])
    ratios[np.arange(3), y] = 0
    np.testing.assert_allclose(values, np.log1p(ratios.sum(1)), rtol=1e-5)
    expected = ratios / (1 + ratios.sum(1, keepdims=True))
    expected[np.arange(3), y] = -expected.sum(1)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize("labels", [np.array([1]), np.array([[0.0, 1, 0]], "float32")])
def test_infinite_logits_do_not_pass_for_certainty(labels):
    for sure in (np.inf, np.nan):
        assert np.isnan(_numpy(losses.cross_entropy, np.array([[0.0, sure, 0.0]], "float32"), labels)).all()


def _dlr(z, y):
    z = z.astype("float64")
    descending = np.sort(z)[::-1]
    return -(z[y] - max(v for i, v in enumerate(z) if i != y)) / (descending[0] - descending[2])


@pytest.mark.parametrize("labels", [HARD, SOFT])
def test_dlr(labels):
    expected = [_dlr(z, int(y) if np.ndim(y) == 0 else int(np.argmax(y))) for z, y in zip(LOGITS, labels)]
    np.testing.assert_allclose(_numpy(losses.dlr, LOGITS, labels), expected, rtol=1e-5)


@pytest.mark.parametrize("y", [0, 1])
def test_dlr_of_tied_logits_is_zero_and_has_a_gradient(y):
    tied = ops.convert_to_tensor(np.array([[1.0, 1.0, 0.0, -1.0, -2.0]], "float32"))
    labels = ops.convert_to_tensor(np.array([y]))
    values, _, gradient = backend.input_gradient(lambda z: (losses.dlr(z, labels), labels), tied)
    assert abs(ops.convert_to_numpy(values)[0]) < 1e-6
    expected = np.zeros((1, 5))
    expected[0, 1 - y], expected[0, y] = 1, -1
    np.testing.assert_allclose(ops.convert_to_numpy(gradient), expected, atol=1e-6)


def test_targeted_dlr():
    targets = (HARD + 1) % 5
    expected = []
    for z, y, t in zip(LOGITS.astype("float64"), HARD, targets):
        d = np.sort(z)[::-1]
        expected.append(-(z[y] - z[t]) / (d[0] - (d[2] + d[3]) / 2))
    np.testing.assert_allclose(_numpy(losses.targeted_dlr, LOGITS, HARD, targets), expected, rtol=1e-5)


def test_correct_takes_soft_labels_and_no_nan():
    logits = np.array([[0.0, 1.0], [0.0, 1.0], [np.nan, 1.0]], "float32")
    assert _numpy(losses.correct, logits, np.array([1, 0, 1])).tolist() == [True, False, False]
    assert _numpy(losses.correct, logits, np.array([[0.4, 0.6], [0.9, 0.1], [0, 1]])).tolist() == [True, False, False]


@pytest.mark.parametrize(("loss", "classes"), [(losses.dlr, 2), (lambda z, y: losses.targeted_dlr(z, y, y), 3)])
def test_margin_losses_refuse_too_few_classes(loss, classes):
    with pytest.raises(ValueError, match=f"at least {classes + 1} classes"):
        loss(ops.zeros((1, classes)), ops.zeros((1,), "int32"))


def test_get_names_the_nearest_loss():
    assert losses.get("dlr") is losses.dlr
    with pytest.raises(ValueError, match="Did you mean 'dlr'"):
        losses.get("DLRR")


def test_losses_towards_a_class_rise_with_its_logit():
    logits = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
    goals = np.array([0, 1, 2, 3, 4, 0])
    top = -np.sort(-logits, axis=1)
    own = logits[np.arange(6), goals]
    others = np.where(np.arange(5) == goals[:, None], -np.inf, logits).max(1)

    def value(loss):
        towards = losses.towards(losses.get(loss))
        return ops.convert_to_numpy(towards(ops.convert_to_tensor(logits), ops.convert_to_tensor(goals)))

    np.testing.assert_allclose(value("margin"), own - others, rtol=1e-5)
    np.testing.assert_allclose(value("dlr"), (own - others) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2), rtol=1e-4)
    np.testing.assert_allclose(value("ce"), own - np.log(np.exp(logits).sum(1)), rtol=1e-4, atol=1e-6)
