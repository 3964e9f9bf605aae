"""Geometry of the norms: properties that hold for any point, and the nearest point by another solver."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops
from scipy.optimize import minimize

from keras_robust import ThreatModel

NORMS = ("Linf", "L2", "L1")
ORDER = {"Linf": np.inf, "L2": 2, "L1": 1}

pixels = hnp.arrays("float32", (2, 2, 3, 2), elements=st.floats(0, 1, width=32))
points = hnp.arrays("float32", (2, 2, 3, 2), elements=st.floats(-2, 3, width=32))
radii = st.one_of(st.just(0.0), st.floats(1e-4, 4.0))


def threat_of(norm, eps):
    """The threat model of a radius or, where it is none under Linf, of the largest."""
    return ThreatModel(norm, min(eps, 1.0) if norm == "Linf" else eps)


def _norms(norm, delta):
    return np.linalg.norm(delta.reshape(len(delta), -1).astype("float64"), ORDER[norm], axis=1)


@pytest.mark.parametrize("norm", NORMS)
@given(x=pixels, point=points, eps=radii)
def test_projection_lies_in_ball_and_box(norm, x, point, eps):
    z = threat_of(norm, eps).project(point, x)
    assert z.min() >= 0
    assert z.max() <= 1
    assert (_norms(norm, z.astype("float64") - x) <= eps * (1 + 1e-6) + 1e-7).all()


@pytest.mark.parametrize("norm", NORMS)
@given(x=pixels, point=points, eps=radii)
def test_projection_is_idempotent_to_the_bit(norm, x, point, eps):
    threat = threat_of(norm, eps)
    once = threat.project(point, x)
    np.testing.assert_array_equal(threat.project(once, x), once)
    assert threat.contains(once, x).all()


@pytest.mark.parametrize("norm", NORMS)
@given(x=pixels, point=points, eps=st.floats(1e-3, 4.0))
def test_points_inside_stay_to_the_bit(norm, x, point, eps):
    delta = point - x
    shrink = np.minimum(0.999 * eps / np.maximum(_norms(norm, delta), 1e-9), 1)[:, None, None, None]
    inside = (x + delta * shrink).clip(0, 1).astype("float32")
    inside[inside < np.finfo("float32").tiny] = 0  # frameworks flush subnormal numbers to zero
    np.testing.assert_array_equal(threat_of(norm, eps).project(inside, x), inside)


def _nearest_by_slsqp(norm, point, x, eps):
    """The projection as a quadratic programme in the positive and negative parts of the change, in float64."""
    n = x.size
    point, x = point.astype("float64").ravel(), x.astype("float64").ravel()

    def change(v):
        return v[:n] - v[n:]

    size = {
        "L2": lambda v: eps**2 - (change(v) ** 2).sum(),
        "L1": lambda v: eps - v.sum(),
    }
    bounds = [(0, 1 - a) for a in x] + [(0, a) for a in x]
    if norm == "Linf":
        bounds = [(low, min(high, eps)) for low, high in bounds]
    constraints = [{"type": "ineq", "fun": size[norm]}] if norm in size else []
    # A tiny cost on the parts keeps at most one of each pair above zero.
    solution = minimize(
        lambda v: ((x + change(v) - point) ** 2).sum() + 1e-9 * v.sum(),
        np.full(2 * n, 1e-3),
        bounds=bounds,
        constraints=constraints,
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-14},
    )
    return x + change(solution.x)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(6))
def test_projection_is_the_nearest_point(norm, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-0.3, 1.3, (1, 1, 3, 2)).clip(0, 1).astype("float32")
    point = (x + rng.normal(size=x.shape) * rng.choice([0.3, 1.0, 3.0])).astype("float32")
    eps = float(rng.uniform(0.05, 1.5))
    ours = threat_of(norm, eps).project(point, x).ravel()
    other = _nearest_by_slsqp(norm, point, x, eps)
    distance = np.linalg.norm(ours - point.ravel().astype("float64"))
    assert distance <= np.linalg.norm(other - point.ravel()) + 1e-5
    np.testing.assert_allclose(ours, other, atol=2e-3)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_of_large_images_keeps_to_the_ball(norm):
    """Rounding must not add up over 150,000 pixels, the size at which ImageNet is evaluated."""
    rng = np.random.default_rng(0)
    eps = {"Linf": 4 / 255, "L2": 2.0, "L1": 75.0}[norm]
    x = np.concatenate([rng.uniform(size=(1, 224, 224, 3)), np.full((1, 224, 224, 3), 0.7)]).astype("float32")
    point = x + 0.1 * rng.normal(size=x.shape).astype("float32")
    point[1] = x[1] + np.float32(0.02)
    z = ThreatModel(norm, eps).project(point, x)
    sizes = _norms(norm, z.astype("float64") - x)
    assert (sizes <= eps * (1 + 1e-6)).all() if norm != "Linf" else (sizes <= eps + 2**-24).all()
    assert (sizes >= eps * (1 - 1e-3)).all()
    assert ThreatModel(norm, eps).contains(z, x).all()


@pytest.mark.parametrize("norm", NORMS)
def test_random_start_fills_the_ball(norm):
    x = np.full((4, 8, 8, 3), 0.5, "float32")
    eps = {"Linf": 0.1, "L2": 1.0, "L1": 5.0}[norm]
    threat = ThreatModel(norm, eps)
    start = threat.random_start(x, seed=1)
    sizes = _norms(norm, start.astype("float64") - x)
    assert (sizes <= eps * (1 + 1e-6)).all()
    assert (sizes >= 0.9 * eps).all()
    assert len(np.unique(start[0] - start[1])) > 10
    np.testing.assert_array_equal(start, threat.random_start(x, seed=1))
    np.testing.assert_array_equal(start[:2], threat.random_start(x[:2], seed=1))


def test_steps_have_unit_size():
    gradient = np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype("float32")
    for norm in NORMS:
        np.testing.assert_allclose(_norms(norm, ThreatModel(norm, 1.0).step(gradient)), 1, rtol=1e-5)


def test_size_is_the_norm():
    delta = np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype("float32")
    for norm in NORMS:
        np.testing.assert_allclose(ThreatModel(norm, 1.0).perturbation_norm(delta), _norms(norm, delta), rtol=1e-5)


@pytest.mark.parametrize(
    ("norm", "eps", "message"),
    [
        ("linf", 0.1, "Did you mean 'Linf'"),
        ("L3", 0.1, "norm must be one of 'Linf', 'L2', 'L1', 'L0', 'L0-pixels'; received 'L3'"),
        ("Linf", -0.1, "eps must be a number >= 0, or inf for no bound; received -0.1"),
        ("Linf", float("nan"), "eps must be a number >= 0"),
        ("Linf", "4/255", "eps must be a real number"),
    ],
)
def test_bad_threat_models_are_refused(norm, eps, message):
    with pytest.raises(ValueError, match=message):
        ThreatModel(norm, eps)


@pytest.mark.parametrize("text", ["L2:1e999", "Linf:1e999/1e999", "L1:1/1e-320", "L2:inf/2", "L2:-inf", "L2:"])
def test_only_the_word_is_no_bound(text):
    with pytest.raises(ValueError, match=r"threat must be written NORM:EPS|eps must be a"):
        ThreatModel.parse(text)
    assert not ThreatModel.parse("L2:inf").is_bounded


def test_threat_model_reads_well():
    assert str(ThreatModel("Linf", 4 / 255)) == "Linf 4/255"
    assert str(ThreatModel("L2", 0.5)) == "L2 0.5"
    assert ThreatModel(**ThreatModel("L1", 75).get_config()) == ThreatModel("L1", 75.0)


X = np.full((2, 2, 2, 3), 0.5, "float32")
BAD_IMAGES = {
    "other shapes": (X, X[:1], "x_adv and x must have the same shape; received"),
    "integers": (X.astype("uint8"), X.astype("uint8"), "x_adv must be floats .* received dtype uint8"),
    "rank": (X[0], X[0], r"received dtype float32 and shape \(2, 2, 3\)"),
    "no array": ([0.5], [0.5], "received dtype list"),
    "NaN": (np.where(np.arange(3) == 1, np.nan, X), X, "x_adv must be numbers; received NaN"),
    "NaN in x": (X, X * np.nan, "x must be finite"),
    "x outside the box": (X, X * 255, "x must be pixels in"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images_are_refused(case):
    x_adv, x, message = BAD_IMAGES[case]
    with pytest.raises(ValueError, match=message):
        ThreatModel("L2", 1.0).project(x_adv, x)
    if isinstance(x, np.ndarray):
        tensors = (ops.convert_to_tensor(each, dtype=each.dtype) for each in (x_adv, x))
        with pytest.raises(ValueError, match="must"):
            ThreatModel("L2", 1.0).project(*tensors)


def test_random_start_and_contains_refuse_bad_images():
    threat = ThreatModel("L2", 1.0)
    with pytest.raises(ValueError, match="x must be pixels in"):
        threat.random_start(X * 255)
    with pytest.raises(ValueError, match="seed must be an integer >= 0"):
        threat.random_start(X, seed=-1)
    with pytest.raises(ValueError, match="same shape"):
        threat.contains(X, X[:1])
    assert not threat.contains(X * np.nan, X).any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [0.0, 1e-45, 1e-7, 1e6, 1e38, 1e300])
def test_tiny_and_huge_radii(norm, eps):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(3, 4, 4, 3)).astype("float32")
    z = threat_of(norm, eps).project(x + rng.normal(size=x.shape).astype("float32"), x)
    assert z.min() >= 0
    assert z.max() <= 1
    moved = np.abs(z - x).max()
    assert moved > 0.5 if eps > 1 else moved <= max(2 * eps, 2.0**-23)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sparse_steps_move_the_largest_entries(dtype):
    """Against sorting in numpy: with ties, zeros, and shares from none to all of the entries."""
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 unless told so")
    rng = np.random.default_rng(0)
    gradient = rng.normal(size=(40, 4, 5, 3)).astype(dtype)
    gradient[:10] = np.round(gradient[:10], 1)
    gradient[10:15] *= rng.random((5, 4, 5, 3)) < 0.1
    gradient[15] = 0
    share = np.linspace(0, 1, 40).astype("float32")
    step = ThreatModel("L1", 1.0).geometry.sparse_step(ops.convert_to_tensor(gradient), ops.convert_to_tensor(share))
    for one, each, part in zip(ops.convert_to_numpy(step), gradient, share):
        ranked = np.sort(np.abs(each).ravel())
        first = min(int(np.floor((np.float32(1) - part) * np.float32(60))), 59)
        expected = np.sign(each) * (np.abs(each) >= ranked[first])
        np.testing.assert_allclose(one, expected / max(np.abs(expected).sum(), 1e-10), rtol=1e-6)
