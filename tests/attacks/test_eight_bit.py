"""APGD among the images that an image file can hold."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_robust as kr
from keras_robust.norms import NORMS, on_8_bit_grid

RNG = np.random.default_rng(0)
X = (RNG.integers(0, 256, (8, 5, 5, 3)) / 255).astype("float32")
Y = (np.arange(8) % 5).astype("int32")
RADII = {"Linf": 4 / 255, "L2": 0.3, "L1": 1.5}


def is_on_grid(x):
    return np.abs(255.0 * x.astype(np.float64) - np.round(255.0 * x)).max() < 1e-4


@pytest.mark.parametrize("norm", RADII)
def test_points_lie_on_the_grid_and_in_the_ball(norm):
    geometry, eps = NORMS[norm], RADII[norm]
    far = ops.convert_to_tensor(X + RNG.normal(size=X.shape).astype("float32") * 0.1)
    x = ops.convert_to_tensor(X)
    inside = geometry.project(far, x, eps)
    points = on_8_bit_grid(geometry, inside, x, eps)
    assert ops.convert_to_numpy(geometry.contains(points, x, eps)).all()
    points, inside = ops.convert_to_numpy(points), ops.convert_to_numpy(inside)
    assert is_on_grid(points)
    # Whole levels towards the image are always in the ball: no point is farther from where the step led than those.
    towards = X + np.trunc(255.0 * (inside.astype(np.float64) - X) + 1e-3 * np.sign(inside - X)) / 255.0
    distance, most = (np.linalg.norm((each - inside).reshape(8, -1), axis=1) for each in (points, towards))
    assert (distance <= most + 1e-6).all()
    if norm == "Linf":  # whose faces are levels, so that the nearest level is inside
        np.testing.assert_allclose(points, np.clip(np.round(255.0 * inside), 0, 255) / 255.0, atol=1e-6)
    again = on_8_bit_grid(geometry, ops.convert_to_tensor(points), x, eps)
    np.testing.assert_allclose(ops.convert_to_numpy(again), points, atol=1e-6)


def test_a_radius_for_each_image():
    eps = ops.convert_to_tensor(np.linspace(0.0, 0.4, 8).astype("float32"))
    x = ops.convert_to_tensor(X)
    far = NORMS["L2"].project(x + 0.05, x, eps)
    points = on_8_bit_grid(NORMS["L2"], far, x, eps)
    assert ops.convert_to_numpy(NORMS["L2"].contains(points, x, eps)).all()
    np.testing.assert_array_equal(ops.convert_to_numpy(points)[0], X[0])


@pytest.mark.parametrize("norm", RADII)
def test_what_is_found_is_an_8_bit_image(model, norm):
    threat = kr.ThreatModel(norm, RADII[norm])
    options = {"n_iter": 8, "returns": "misclassified"}
    y = ops.convert_to_numpy(ops.argmax(model(X, training=False), 1)).astype("int32")
    attack = kr.attacks.APGD(threat, eight_bit=True, **options)
    x_adv = attack(model, X, y)
    assert is_on_grid(x_adv)
    assert threat.contains(x_adv, X).all()

    def loss(images):
        logits = model(images, training=False)
        return ops.convert_to_numpy(keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True))

    # Better than to round what was found between the levels, and no better than that itself.
    between = kr.attacks.APGD(threat, **options)(model, X, y)
    assert loss(x_adv).mean() > loss(X).mean()
    if norm == "Linf":
        assert loss(x_adv).mean() >= loss(np.round(255 * between).astype("float32") / 255).mean() - 1e-3
    assert loss(x_adv).mean() <= loss(between).mean() + 0.02


def test_less_than_a_level_is_no_change(model):
    attack = kr.attacks.APGD(kr.ThreatModel("Linf", 0.9 / 255), n_iter=3, eight_bit=True)
    np.testing.assert_array_equal(attack(model, X, Y), X)


def test_a_radius_just_below_a_level_goes_to_the_level_below():
    """0.03137 is 7.99935 levels: level 8 is outside, by less than floats are taken to miss a level by."""
    x = ops.convert_to_tensor(np.round(0.5 * 255 * np.ones((1, 4, 4, 3))).astype("float32") / np.float32(255))
    for sign in (-1.0, 1.0):
        points = ops.convert_to_numpy(on_8_bit_grid(NORMS["Linf"], x + sign * 0.03137, x, 0.03137))
        assert is_on_grid(points)
        np.testing.assert_array_equal(np.round(255 * (points - ops.convert_to_numpy(x))), sign * 7)


@pytest.mark.parametrize("norm", RADII)
def test_pixels_that_stay_are_the_same_to_the_last_bit(norm):
    """Although they are an ulp off their level, as other arithmetic makes them: L1 counts what changed."""
    x = np.where(X > 0, np.nextafter(X, np.float32(0.5)), X)  # next to 0 are floats that some processors take for 0
    moved = x.copy()
    moved[:, 2, 2, 1] += np.where(x[:, 2, 2, 1] > 0.5, -1, 1).astype("float32") * 3 / 255
    tensor = ops.convert_to_tensor(x)
    points = on_8_bit_grid(NORMS[norm], ops.convert_to_tensor(moved), tensor, RADII[norm])
    changed = ops.convert_to_numpy(points) != x
    assert changed.reshape(8, -1).sum(1).tolist() == [1] * 8


def test_other_images_and_settings_are_refused(model):
    attack = kr.attacks.APGD(kr.ThreatModel("Linf", 4 / 255), n_iter=3, eight_bit=True)
    with pytest.raises(ValueError, match="x must be images of 8 bits over 255 with eight_bit=True"):
        attack(model, X + np.float32(0.001), Y)
    with pytest.raises(ValueError, match="schedule must be 'constant' with eight_bit=True; received 'shrinking'"):
        kr.attacks.APGD(kr.ThreatModel("L1", 3.0), schedule="shrinking", eight_bit=True)
    assert attack.name == "apgd-ce-8-bit"
    assert kr.attacks.APGD.from_config(attack.get_config()).eight_bit
