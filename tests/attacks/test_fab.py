"""FAB: its projections against linear and quadratic programmes, its distances against closed forms."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy.optimize import linprog, minimize

import keras_robust as kr
from keras_robust.norms import NORMS

ORDER = {"Linf": np.inf, "L2": 2, "L1": 1}
every_norm = pytest.mark.parametrize("norm", kr.attacks.FAB.supported_norms)


def _smallest_change(norm, x, normal, gap):
    """Norm of the smallest d with gap + <normal, d> = 0 and x + d in [0, 1] by another solver, or None."""
    x, normal = x.astype("float64").ravel(), normal.astype("float64").ravel()
    n = x.size
    if norm == "L2":
        solution = minimize(
            lambda d: (d**2).sum(),
            np.zeros(n),
            jac=lambda d: 2 * d,
            bounds=list(zip(-x, 1 - x)),
            constraints={"type": "eq", "fun": lambda d: gap + normal @ d, "jac": lambda d: normal},
            method="SLSQP",
            options={"maxiter": 1000, "ftol": 1e-14},
        )
        return np.sqrt(solution.fun) if solution.success else None
    if norm == "Linf":  # variables d and its largest entry
        above = np.block([[np.eye(n), -np.ones((n, 1))], [-np.eye(n), -np.ones((n, 1))]])
        solution = linprog(
            [0.0] * n + [1.0],
            A_ub=above,
            b_ub=np.zeros(2 * n),
            A_eq=[[*normal, 0.0]],
            b_eq=[-gap],
            bounds=[*zip(-x, 1 - x), (0, None)],
        )
    else:  # positive and negative part of d
        solution = linprog(
            np.ones(2 * n),
            A_eq=[[*normal, *-normal]],
            b_eq=[-gap],
            bounds=[*((0, 1 - a) for a in x), *((0, a) for a in x)],
        )
    return solution.fun if solution.success else None


@every_norm
@pytest.mark.parametrize("seed", range(3))
def test_projection_onto_a_hyperplane_in_the_box_is_the_smallest(norm, seed):
    rng = np.random.default_rng(seed)
    count = 6
    x = rng.uniform(-0.3, 1.3, (count, 2, 3, 2)).clip(0, 1).astype("float32")
    normal = (rng.normal(size=x.shape) * (rng.uniform(size=x.shape) > 0.2)).astype("float32")
    normal[0] = np.sign(normal[0])  # ties
    gap = (rng.uniform(0.05, 3, count) * rng.choice([-1, 1], count)).astype("float32")
    gap[-1] = 50.0  # beyond what the box allows
    d = ops.convert_to_numpy(NORMS[norm].to_hyperplane(*map(ops.convert_to_tensor, (x, normal, gap))))
    assert (x + d).min() >= -1e-6
    assert (x + d).max() <= 1 + 1e-6
    for image, direction, value, change in zip(x, normal, gap, d):
        least = _smallest_change(norm, image, direction, float(value))
        on_plane = value + (direction.astype("float64") * change).sum()
        if least is None:
            # As far as the box allows: no entry can help any more.
            corner = np.where(-np.sign(value) * direction > 0, 1 - image, image)
            np.testing.assert_allclose(np.abs(change)[direction != 0], corner[direction != 0], atol=1e-6)
            continue
        assert abs(on_plane) < 1e-4 * abs(value)
        size = np.linalg.norm(change.astype("float64").ravel(), ORDER[norm])
        assert size == pytest.approx(least, rel=1e-4, abs=1e-6)


@every_norm
def test_projection_does_not_depend_on_the_batch(norm):
    rng = np.random.default_rng(5)
    x = rng.uniform(size=(16, 4, 4, 3)).astype("float32")
    normal = rng.normal(size=x.shape).astype("float32")
    gap = np.linspace(0.01, 20, 16).astype("float32")

    def project(rows):
        tensors = (ops.convert_to_tensor(a[rows]) for a in (x, normal, gap))
        return ops.convert_to_numpy(NORMS[norm].to_hyperplane(*tensors))

    # Steps of Newton's method that one example needs must not move another by a rounding.
    easy = [i % 4 for i in range(16)]
    np.testing.assert_array_equal(project(easy)[:4], project(range(16))[:4])


def _linear(classes, seed=0):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(36, classes)).astype("float32")
    weights = ops.convert_to_tensor(kernel)
    model = lambda images: ops.matmul(ops.reshape(images, (-1, 36)) - 0.5, weights)  # noqa: E731
    x = (0.5 + 0.1 * rng.normal(size=(8, 4, 3, 3))).astype("float32").clip(0, 1)
    return kernel, model, x, ops.convert_to_numpy(model(ops.convert_to_tensor(x))).argmax(1)


@every_norm
@pytest.mark.parametrize("targeted", [False, True][: 1 if keras.backend.backend() == "jax" else None])
def test_finds_the_nearest_boundary_of_a_linear_model(norm, targeted):
    kernel, model, x, y = _linear(4)
    dual = {"Linf": 1, "L2": 2, "L1": np.inf}[norm]
    flat = x.reshape(8, -1) - 0.5
    distance = np.array(
        [
            min(
                (flat[i] @ (kernel[:, y[i]] - kernel[:, c])) / np.linalg.norm(kernel[:, y[i]] - kernel[:, c], dual)
                for c in range(4)
                if c != y[i]
            )
            for i in range(8)
        ]
    )
    if norm == "L1":  # the entry with the largest gradient may reach the border of the box first
        distance *= 1.5
    attack = kr.attacks.FAB(kr.ThreatModel(norm, 1.0 if norm == "Linf" else 10.0), n_iter=20, targeted=targeted)
    x_adv = attack(model, x, y)
    assert (ops.convert_to_numpy(model(ops.convert_to_tensor(x_adv))).argmax(1) != y).all()
    found = np.linalg.norm((x_adv.astype("float64") - x).reshape(8, -1), ORDER[norm], axis=1)
    assert (found >= distance * (0.99 if norm != "L1" else 0.6)).all()
    assert (found <= distance * 1.06).all()


@every_norm
def test_outside_the_ball_the_image_comes_back(norm):
    _, model, x, y = _linear(4)
    x_adv = kr.attacks.FAB(kr.ThreatModel(norm, 1e-5), n_iter=5)(model, x, y)
    np.testing.assert_array_equal(x_adv, x)


def test_images_misclassified_as_they_are_come_back():
    _, model, x, y = _linear(4)
    x_adv = kr.attacks.FAB(kr.ThreatModel("L2", 5.0), n_iter=5)(model, x, (y + 1) % 4)
    np.testing.assert_array_equal(x_adv, x)


def test_restarts_begin_elsewhere():
    _, model, x, y = _linear(4)
    attack = kr.attacks.FAB(kr.ThreatModel("L2", 1.0), n_iter=1, n_restarts=2)
    starts = []
    problem = attack.problem(model, ops.convert_to_tensor(x), ops.convert_to_tensor(y.astype("int32")))
    keys = kr.random.example_keys(0, 0, ops.arange(8, dtype="int32"))
    for number in (0, 1):
        starts.append(ops.convert_to_numpy(attack.start(attack.attempt(problem, keys, number, None))))
    np.testing.assert_array_equal(starts[0], x)
    distance = np.linalg.norm((starts[1] - x).reshape(8, -1), axis=1)
    assert (distance > 0.3).all()
    assert (distance <= 0.5 + 1e-5).all()
