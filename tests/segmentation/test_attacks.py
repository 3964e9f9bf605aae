"""Attacks on dense labels beside an image-by-image implementation, and what they refuse."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_robust as kr
from keras_robust.segmentation.losses import CrossEntropy, jensen_shannon
from tests.attacks.reference import Net

from . import reference_attack as reference

HEIGHT, WIDTH, CLASSES = 4, 5, 3
WEIGHTS = (0.2, 0.5, 0.3)
LOSSES = {
    "ce": ("ce", reference.cross_entropy),
    "masked": (CrossEntropy(only_correct=True), lambda z, y: reference.cross_entropy(z, y, only_correct=True)),
    "balanced": (CrossEntropy(WEIGHTS, True), lambda z, y: reference.cross_entropy(z, y, WEIGHTS, True)),
    "js": (jensen_shannon, reference.jensen_shannon),
}


@pytest.fixture(scope="module")
def problem():
    """A net of two dense layers, the same as a Keras model, images, and labels of which most are right."""
    net = Net((HEIGHT, WIDTH, 3), HEIGHT * WIDTH * CLASSES)
    inputs = keras.Input((HEIGHT, WIDTH, 3))
    h = keras.layers.Flatten(data_format="channels_last")(inputs - 0.5)
    h = keras.layers.Dense(12, activation="tanh", use_bias=False)(h)
    h = keras.layers.Dense(HEIGHT * WIDTH * CLASSES, use_bias=False)(h)
    model = keras.Model(inputs, keras.layers.Reshape((HEIGHT, WIDTH, CLASSES))(h))
    model.set_weights([net.first, net.second])
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 1, (6, HEIGHT, WIDTH, 3)).astype("float32")
    y = np.stack([net.logits(image.astype("float64")).reshape(HEIGHT, WIDTH, CLASSES).argmax(-1) for image in x])
    y = np.where(rng.random(y.shape) < 0.15, (y + 1) % CLASSES, y)
    y = np.where(rng.random(y.shape) < 0.2, -1, y).astype("int32")
    return net, model, x, y


@pytest.mark.parametrize("loss", LOSSES)
def test_pgd_step_by_step(problem, loss):
    net, model, x, y = problem
    ours, theirs = LOSSES[loss]
    attack = kr.attacks.PGD(kr.ThreatModel("Linf", 0.05), n_iter=5, step_size=0.02, loss=ours, returns="last")
    expected = [reference.pgd(net, a.astype("float64"), b, 0.05, 5, 0.02, theirs) for a, b in zip(x, y)]
    np.testing.assert_allclose(attack(model, x, y), expected, atol=1e-5)


@pytest.mark.parametrize("n_iter", [10, 30])
@pytest.mark.parametrize("loss", LOSSES)
def test_shrinking_apgd_step_by_step(problem, loss, n_iter):
    """Three radii, the step set by the cross-entropy of all pixels, the point with the fewest right pixels returned."""
    net, model, x, y = problem
    ours, theirs = LOSSES[loss]
    attack = kr.attacks.APGD(
        kr.ThreatModel("Linf", 0.03),
        n_iter=n_iter,
        loss=ours,
        tracked_loss="ce",
        schedule="shrinking",
        returns="misclassified",
    )
    expected = [reference.shrinking_apgd(net, a.astype("float64"), b, 0.03, n_iter, theirs) for a, b in zip(x, y)]
    x_adv = attack(model, x, y)
    # Of many steps one may turn on the last bit of a float.
    agree = [np.abs(a - b).max() < 1e-4 for a, (b, _) in zip(x_adv, expected)]
    assert np.mean(agree) >= (1.0 if n_iter <= 10 else 0.8)
    shares = [reference.right(net.logits(a.astype("float64")).reshape(*b.shape, -1), b) for a, b in zip(x_adv, y)]
    np.testing.assert_allclose(np.array(shares)[agree], np.array([share for _, share in expected])[agree])
    before = [reference.right(net.logits(a.astype("float64")).reshape(*b.shape, -1), b) for a, b in zip(x, y)]
    assert np.mean(shares) < np.mean(before) - 0.1


def test_misclassified_means_fewest_right_pixels(problem):
    """Beside the point of highest loss, which may have more of them."""
    _, model, x, y = problem
    threat = kr.ThreatModel("Linf", 0.05)
    shares = {}
    for returns in ("misclassified", "highest_loss"):
        x_adv = kr.attacks.APGD(threat, n_iter=10, returns=returns, loss=CrossEntropy(only_correct=True))(model, x, y)
        shares[returns] = np.array(
            [reference.right(ops.convert_to_numpy(model(a[None]))[0], b) for a, b in zip(x_adv, y)]
        )
    assert (shares["misclassified"] <= shares["highest_loss"]).all()
    assert (shares["misclassified"] < shares["highest_loss"]).any()


def test_draws_are_keyed_by_the_place_in_the_data_set(problem):
    _, model, x, y = problem
    attack = kr.attacks.APGD(
        kr.ThreatModel("Linf", 0.03), n_iter=4, schedule="shrinking", random_start=True, returns="misclassified"
    )
    whole = attack(model, x, y)
    np.testing.assert_allclose(attack(model, x[4:], y[4:], first_index=4), whole[4:], atol=1e-6)
    assert np.abs(attack(model, x[4:], y[4:]) - whole[4:]).max() > 1e-3


def test_a_saved_attack_has_its_losses():
    attack = kr.attacks.APGD(
        kr.ThreatModel("Linf", 0.03), loss=CrossEntropy(WEIGHTS), tracked_loss=jensen_shannon, returns="misclassified"
    )
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(attack))
    assert repr(again) == repr(attack)
    assert again.tracked_loss is jensen_shannon


def test_refused(problem):
    _, model, x, y = problem
    threat = kr.ThreatModel("Linf", 0.03)
    attack = kr.attacks.PGD(threat)
    with pytest.raises(ValueError, match=r"of each pixel, of shape \(6, 4, 5\)"):
        attack(model, x, y[:, 0, 0])
    with pytest.raises(
        ValueError, match=r"\[0, 2\], as the model has 3 classes, or -1 .* received values in \[-1, 255\]"
    ):
        attack(model, x, np.where(y == 0, 255, y))
    with pytest.raises(
        ValueError, match=r"model must return logits of shape \(batch, height, width, classes\) at the size"
    ):
        attack(lambda images: model(images)[:, :2], x, y)
    with pytest.raises(ValueError, match="probabilities"):
        attack(keras.Sequential([model, keras.layers.Softmax()]), x, y)
    for other in (kr.attacks.FAB(threat), kr.attacks.Square(threat), kr.attacks.APGD(threat, loss="targeted-dlr")):
        with pytest.raises(ValueError, match=r"logits of shape \(batch, classes\); its output is \(None, 4, 5, 3\)"):
            other(model, x, y)
    with pytest.raises(ValueError, match=r"logits of shape \(batch, classes\)"):
        kr.attacks.AutoAttack(threat)(model, x, y)
    with pytest.raises(ValueError, match="schedule='shrinking' is for L1 and Linf, and n_iter >= 3; received L2 1"):
        kr.attacks.APGD(kr.ThreatModel("L2", 1.0), schedule="shrinking")
    with pytest.raises(ValueError, match="tracked_loss must be None with loss='targeted-dlr'"):
        kr.attacks.APGD(threat, loss="targeted-dlr", tracked_loss="ce")
