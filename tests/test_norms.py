"""L0 balls, over values and over pixels: every quantity by trying all subsets. (The other norms: `test_threat`.)"""

from itertools import combinations, product

import numpy as np
import pytest
from keras import ops

from keras_robust import ThreatModel, random
from keras_robust.norms import NORMS

SHAPE = (1, 3, 2)
both = pytest.mark.parametrize("norm", ["L0", "L0-pixels"])


def _subsets(norm, count):
    """All masks (1, 3, 2) of `count` values or pixels."""
    places = list(product(range(3), range(2))) if norm == "L0" else list(range(3))
    for chosen in combinations(places, count):
        mask = np.zeros(SHAPE, bool)
        for place in chosen:
            mask[0][place] = True
        yield mask


def _points(seed=0, count=24):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-0.2, 1.2, (count, *SHAPE)).clip(0, 1).astype("float32")
    return x, (x + rng.normal(size=x.shape) * rng.choice([0.1, 1.0, 3.0], (count, 1, 1, 1))).astype("float32")


@both
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_projection_is_the_nearest_of_all_subsets(norm, count):
    x, points = _points()
    threat = ThreatModel(norm, count)
    z = threat.project(points, x)
    assert threat.contains(z, x).all()
    assert (threat.geometry.measure(z, x) <= count).all()
    np.testing.assert_array_equal(threat.project(z, x), z)
    for image, point, ours in zip(x, points, z):
        best = min(
            np.linalg.norm(np.where(mask, point.clip(0, 1), image).astype("float64") - point)
            for mask in _subsets(norm, count)
        )
        assert np.linalg.norm(ours.astype("float64") - point) == pytest.approx(best, rel=1e-6)


@both
def test_each_image_has_a_radius_of_its_own(norm):
    x, points = _points()
    radii = np.arange(len(x)) % 4
    geometry = NORMS[norm]
    z = geometry.project(*map(ops.convert_to_tensor, (points, x, radii.astype("float32"))))
    one_by_one = [ThreatModel(norm, eps).project(points[i : i + 1], x[i : i + 1]) for i, eps in enumerate(radii)]
    np.testing.assert_array_equal(ops.convert_to_numpy(z), np.concatenate(one_by_one))


@both
def test_of_equal_changes_the_first_are_kept(norm):
    x = np.full((1, *SHAPE), 0.5, "float32")
    z = ThreatModel(norm, 2).project(x + 0.25, x)
    assert np.count_nonzero(z != x) == (2 if norm == "L0" else 4)
    assert (z[0, 0, 0] != x[0, 0, 0]).all()


@both
def test_norms_of_arrays_and_of_tensors_agree(norm):
    x, points = _points()
    z = np.where(np.random.default_rng(1).random(x.shape) < 0.5, points.clip(0, 1), x)
    expected = [len({place if norm == "L0" else place[:2] for place in zip(*np.nonzero(d))}) for d in z - x]
    np.testing.assert_array_equal(ThreatModel(norm, 1).perturbation_norm(z - x), expected)
    np.testing.assert_array_equal(NORMS[norm].measure(z, x), expected)


@both
def test_random_points_change_as_many(norm):
    x = np.full((6, 5, 4, 3), 0.5, "float32")
    start = ThreatModel(norm, 7).random_start(x, seed=3)
    np.testing.assert_array_equal(NORMS[norm].measure(start, x), 7)
    assert 0 <= start.min() < 0.2 < 0.8 < start.max() <= 1
    assert len({tuple(np.flatnonzero(each != 0.5)) for each in start}) == 6


@both
def test_steps_follow_the_foremost_change(norm):
    x, points = _points()
    gradient = points - x
    geometry = NORMS[norm]
    step = ThreatModel(norm, 1).step(gradient)
    np.testing.assert_array_equal(geometry.measure(step, np.zeros_like(step)), 1)
    gained = (step * gradient).sum((1, 2, 3))
    best = np.max([(np.abs(gradient) * mask).sum((1, 2, 3)) for mask in _subsets(norm, 1)], axis=0)
    np.testing.assert_allclose(gained, best, rtol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(geometry.dual(ops.convert_to_tensor(gradient))), best, rtol=1e-6)


@both
def test_hyperplanes_are_reached_by_the_fewest_changes(norm):
    x, points = _points()
    normal = points - x
    gap = np.linspace(0.05, 2.0, len(x)).astype("float32")
    change = NORMS[norm].to_hyperplane(*map(ops.convert_to_tensor, (x, normal, gap)))
    change = ops.convert_to_numpy(change)
    assert (x + change).min() >= -1e-6
    assert (x + change).max() <= 1 + 1e-6
    for image, direction, value, moved in zip(x, normal, gap, change):
        gain = np.abs(direction) * np.where(direction > 0, image, 1 - image)
        needed = next((k for k in range(7) if any((gain * m).sum() >= value for m in _subsets(norm, k))), None)
        if needed is None:  # all the box allows
            np.testing.assert_allclose((direction * moved).sum(), -gain.sum(), rtol=1e-5)
            continue
        np.testing.assert_allclose((direction * moved).sum(), -value, rtol=1e-4)
        used = NORMS[norm].measure((image + moved)[None], image[None])[0]
        assert used <= needed


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_radii_of_each_image_do_what_they_do_alone(norm):
    x, points = _points()
    radii = np.linspace(0.01, 0.9, len(x)).astype("float32")
    geometry, (image, point, eps) = NORMS[norm], map(ops.convert_to_tensor, (x, points, radii))
    keys = random.example_keys(0, 0, ops.arange(len(x), dtype="int32"))
    together = (
        geometry.project(point, image, eps),
        geometry.retract(point, image, eps),
        geometry.random(keys, image, eps),
    )
    for i in (0, 11, 23):
        one, at = [tensor[i : i + 1] for tensor in (point, image)], float(radii[i])
        alone = (
            geometry.project(*one, at),
            geometry.retract(*one, at),
            geometry.random(tuple(key[i : i + 1] for key in keys), one[1], at),
        )
        for a, b in zip(together, alone):
            np.testing.assert_allclose(ops.convert_to_numpy(a)[i], ops.convert_to_numpy(b)[0], atol=1e-6)
    assert ops.convert_to_numpy(geometry.contains(together[0], image, eps)).all()


def test_threats_without_a_bound():
    threat = ThreatModel.parse("L2:inf")
    assert not threat.is_bounded
    assert (str(threat), threat.spec) == ("L2 inf", "L2:inf")
    assert str(ThreatModel("Linf", float("inf"))) == "Linf inf"
    x, points = _points()
    np.testing.assert_allclose(threat.project(points, x), points.clip(0, 1), atol=1e-7)
