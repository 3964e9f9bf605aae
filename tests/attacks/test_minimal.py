"""Minimal-norm attacks: distances against closed forms of linear models and brute force on small ones."""

import math
from itertools import combinations, product

import keras
import numpy as np
import pytest
from keras import ops

import keras_robust as kr
from keras_robust.attacks import APGD, DDN, FAB, FMN, PGD, RadiusSearch, SigmaZero, Square

FIRST = {"Linf": 0.05, "L2": 0.3, "L1": 1.0}


def _apgd(norm, **options):
    return APGD(kr.ThreatModel(norm, FIRST[norm]), n_iter=10, returns="misclassified", **options)


ATTACKS = {
    "fmn-Linf": lambda: FMN("Linf", n_iter=80),
    "fmn-L2": lambda: FMN("L2", n_iter=80),
    "fmn-L1": lambda: FMN("L1", n_iter=80),
    "fmn-L0": lambda: FMN("L0", n_iter=80),
    "fmn-L0-pixels": lambda: FMN("L0-pixels", n_iter=80),
    "ddn": lambda: DDN(n_iter=80),
    "sigma-zero": lambda: SigmaZero(n_iter=80),
    "apgd-Linf": lambda: RadiusSearch(_apgd("Linf", loss="margin"), n_steps=9),
    "apgd-L2": lambda: RadiusSearch(_apgd("L2"), n_steps=9),
    "apgd-L1": lambda: RadiusSearch(_apgd("L1"), n_steps=9),
    "apgd-t": lambda: RadiusSearch(_apgd("L2", loss="targeted-margin", n_target_classes=3), n_steps=9),
}
# How far above the smallest distance each may end on a linear model, where it is a matter of steps alone.
EXCESS = {"fmn-L1": 1.15, "fmn-L0": 1.7, "fmn-L0-pixels": 1.7, "sigma-zero": 1.5, "apgd-L1": 1.3}
every_attack = pytest.mark.parametrize("name", ATTACKS)


def _linear(classes=4, shape=(4, 3, 3), count=8):
    """A linear model of well separated classes, images at the border of the box and off it, and their classes."""
    rng = np.random.default_rng(0)
    size = math.prod(shape)
    kernel = rng.normal(size=(size, classes)).astype("float32")
    weights = ops.convert_to_tensor(kernel)
    model = lambda images: ops.matmul(ops.reshape(images, (-1, size)) - 0.5, weights)  # noqa: E731
    x = (0.5 + 0.4 * rng.normal(size=(count, *shape))).clip(0, 1).astype("float32")
    return kernel, model, x, ops.convert_to_numpy(model(ops.convert_to_tensor(x))).argmax(1)


def _least(norm, image, normal, gap):
    """The smallest norm of a change within the box along which a linear function with gradient `normal` rises by `gap`.

    What an entry gives is bounded by its room. Linf and L2: the size that all entries have in common, or in proportion
    to the gradient, by bisection. L1: a fractional knapsack. L0: the largest gains first.
    """
    normal, image = normal.astype("float64"), image.astype("float64")
    size, room = np.abs(normal), np.where(normal > 0, 1 - image, image)
    if (size * room).sum() < gap:
        return np.inf
    if norm in ("L0", "L0-pixels"):
        gains = size * room
        gains = np.sort(gains.reshape(-1, 3).sum(1) if norm == "L0-pixels" else gains.ravel())[::-1]
        return 1 + int((np.cumsum(gains) < gap).sum())
    if norm == "L1":
        order = np.argsort(-size, axis=None)
        gains, rooms = (size * room).ravel()[order], room.ravel()[order]
        full = int((np.cumsum(gains) < gap).sum())
        return rooms[:full].sum() + (gap - gains[:full].sum()) / size.ravel()[order][full]
    speed = np.ones_like(size) if norm == "Linf" else size
    low, high = 0.0, 1e3
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if (size * np.minimum(middle * speed, room)).sum() >= gap else (middle, high)
    return np.linalg.norm(np.minimum(high * speed, room).ravel(), np.inf if norm == "Linf" else 2)


def _least_of_all(norm, kernel, image, label):
    gaps = (image.reshape(-1).astype("float64") - 0.5) @ (kernel[:, [label]] - kernel)
    normals = (kernel - kernel[:, [label]]).T.reshape(-1, *image.shape)
    return min(_least(norm, image, normals[c], gaps[c]) for c in range(kernel.shape[1]) if c != label)


@every_attack
def test_distances_on_a_linear_model_are_the_smallest(name):
    kernel, model, x, y = _linear()
    attack = ATTACKS[name]()
    norm = attack.threat.norm
    result = attack(model, x, y)
    least = np.array([_least_of_all(norm, kernel, image, label) for image, label in zip(x, y)])
    assert (result.distances >= least * (1 - 1e-4)).all()
    assert np.isfinite(result.distances).all()
    assert np.median(result.distances / least) <= EXCESS.get(name, 1.05)
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    answers = ops.convert_to_numpy(model(ops.convert_to_tensor(result.x_adv))).argmax(1)
    assert (answers != y).all()
    np.testing.assert_array_equal(answers, result.adversarial_prediction)
    np.testing.assert_allclose(result.distances, kr.norms.NORMS[norm].measure(result.x_adv, x))


@pytest.mark.parametrize("name", ["fmn-Linf", "fmn-L2", "fmn-L0", "ddn", "sigma-zero", "apgd-L2", "apgd-t"])
def test_targeted_distances_on_a_linear_model_are_no_smaller_than_to_any_boundary(name):
    kernel, model, x, y = _linear(classes=3)
    target = (y + 1) % 3
    attack = ATTACKS[name]()
    norm = attack.threat.norm
    result = attack(model, x, y, target=target)
    for image, goal, distance in zip(x, target, result.distances):
        # The target has to beat every other class: each is a half-space of its own.
        gaps = (image.reshape(-1).astype("float64") - 0.5) @ (kernel - kernel[:, [goal]])
        normals = (kernel[:, [goal]] - kernel).T.reshape(-1, *image.shape)
        apart = [_least(norm, image, normals[c], gaps[c]) for c in range(3) if c != goal and gaps[c] > 0]
        assert distance >= max(apart) * (1 - 1e-4)
    assert np.isfinite(result.distances).all()
    np.testing.assert_array_equal(result.adversarial_prediction, target)


def _small_net(seed):
    """A net of one hidden layer on images of three values, as numpy and as keras.ops."""
    rng = np.random.default_rng(seed)
    first, second = (rng.normal(size=shape).astype("float32") for shape in ((3, 16), (16, 3)))
    bias = rng.normal(size=16).astype("float32")

    def in_numpy(x):
        return np.maximum((x.reshape(-1, 3) - 0.5) @ (3 * first) + bias, 0) @ second

    tensors = [ops.convert_to_tensor(each) for each in (3 * first, bias, second)]

    def in_ops(x):
        hidden = ops.relu(ops.matmul(ops.reshape(x, (-1, 3)) - 0.5, tensors[0]) + tensors[1])
        return ops.matmul(hidden, tensors[2])

    x = rng.uniform(size=(12, 1, 1, 3)).astype("float32")
    return in_numpy, in_ops, x, in_numpy(x).argmax(1)


GRID = np.linspace(0, 1, 31)


def _brute_force(norm, net, image, label):
    """The smallest norm of a change to a point of a grid that the net misclassifies, inf if there is none."""
    points = np.array(list(product(GRID, repeat=3)), "float32")
    if norm == "L0":
        for count in (1, 2, 3):
            for places in combinations(range(3), count):
                some = np.tile(image.ravel(), (len(points), 1))
                some[:, places] = points[:, places]
                if (net(some).argmax(1) != label).any():
                    return count
        return np.inf
    wrong = points[net(points).argmax(1) != label].astype("float64")
    order = {"Linf": np.inf, "L2": 2, "L1": 1}[norm]
    return np.linalg.norm(wrong - image.ravel(), order, axis=1).min() if len(wrong) else np.inf


@pytest.mark.parametrize(
    "name", ["fmn-Linf", "fmn-L2", "fmn-L1", "fmn-L0", "ddn", "sigma-zero", "apgd-Linf", "apgd-L2"]
)
def test_distances_on_small_nets_are_those_of_brute_force(name):
    attack = ATTACKS[name]()
    norm = attack.threat.norm
    net, model, x, y = _small_net(1)
    found = attack(model, x, y).distances
    least = np.array([_brute_force(norm, net, image, label) for image, label in zip(x, y)])
    cell = {"Linf": 1, "L2": math.sqrt(3), "L1": 3, "L0": 0}[norm] / 60  # to the nearest point of the grid
    assert (found >= least - 2 * cell - 1e-6).all()
    assert (found <= 1.1 * least + cell).mean() >= 0.7
    reachable = np.isfinite(least)
    assert np.isfinite(found[reachable]).mean() >= 0.9
    assert np.isinf(found[~reachable]).all()


@pytest.mark.once
@pytest.mark.parametrize("name", ["fmn-L2", "apgd-Linf", "sigma-zero"])
def test_images_that_need_no_attack_and_those_that_none_reaches(name):
    _, model, x, y = _linear()
    y = y.copy()
    y[:3] = (y[:3] + 1) % 4  # misclassified as they are
    offset = np.zeros(4, "float32")
    attack = ATTACKS[name]()
    result = attack(model, x, y)
    np.testing.assert_array_equal(result.distances[:3], 0)
    np.testing.assert_array_equal(result.propagations[:3], 0)
    np.testing.assert_array_equal(result.x_adv[:3], x[:3])
    assert result.clean_accuracy == 5 / 8
    offset[y[4]] = 60.0
    shift = ops.convert_to_tensor(offset)
    with pytest.warns(UserWarning, match="Nothing found: for 1 of 1 images"):
        of_one_class = attack(lambda images: model(images) + shift, x[4:5], y[4:5])
    assert np.isinf(of_one_class.distances).all()
    assert of_one_class.robust_accuracy == 1
    np.testing.assert_array_equal(of_one_class.x_adv, x[4:5])


@pytest.mark.once
@pytest.mark.parametrize("name", ["fmn-Linf", "fmn-L0", "ddn", "sigma-zero"])
def test_a_run_costs_its_gradients_and_a_radius_ends_it(name):
    _, model, x, y = _linear()
    attack = ATTACKS[name]()
    nearest = attack(model, x, y)
    np.testing.assert_array_equal(nearest.propagations, 2 * 80)
    eps = float(np.sort(nearest.distances)[3])
    if attack.threat.norm != "L0":
        eps *= 1.001
    bounded = attack.with_threat(kr.ThreatModel(attack.threat.norm, eps))(model, x, y)
    np.testing.assert_array_equal(bounded.is_robust, nearest.distances > eps)
    assert bounded.robust_accuracy == nearest.robust_at(eps).value
    assert bounded.propagations[~bounded.is_robust].min() < 2 * 80


@pytest.mark.once
def test_a_radius_search_stops_at_success():
    _, model, x, y = _linear()
    search = ATTACKS["apgd-Linf"]()
    result = search(model, x, y)
    whole = 2 * search.n_steps * search.attack.evaluations
    assert (result.propagations < whole).all()
    assert (result.propagations > 0.2 * whole).all()
    bounded = search.with_threat(kr.ThreatModel("Linf", 0.02))
    np.testing.assert_array_equal(bounded(model, x, y).is_robust, result.distances > 0.02)


@pytest.mark.once
def test_a_radius_search_goes_on_from_what_is_known():
    _, model, x, y = _linear()
    first, second = (RadiusSearch(_apgd("Linf", loss="margin"), n_steps=steps) for steps in (3, 4))
    suite = kr.attacks.suite.AttackSuite(model, kr.ThreatModel("Linf", None), {"a": first, "b": second}, 16)
    together = suite.result(ops.convert_to_tensor(x), ops.convert_to_tensor(y)).distances
    rough, alone = first(model, x, y).distances, second(model, x, y).distances
    assert (together <= rough + 1e-7).all()
    # Radii next to a known distance are worth more than the same number from far off.
    assert together.sum() < 0.95 * min(rough.sum(), alone.sum())


@pytest.mark.parametrize("name", ["fmn-L1", "sigma-zero", "apgd-L2"])
def test_an_image_does_not_depend_on_those_beside_it(name):
    _, model, x, y = _linear()
    attack = ATTACKS[name]()
    whole, some = attack(model, x, y), attack(model, x[5:7], y[5:7], batch_size=1)
    np.testing.assert_allclose(some.distances, whole.distances[5:7], rtol=1e-3)


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:Nothing found")  # by so few steps
@pytest.mark.parametrize("make", [lambda: FAB(kr.ThreatModel("L2", math.inf), 20, targeted=True), ATTACKS["fmn-L2"]])
def test_attacks_of_a_suite_without_a_bound_share_the_nearest_point(make):
    _, model, x, y = _linear()
    attacks = {"first": FMN("L2", n_iter=12), "second": make()}
    result = kr.attacks.suite.AttackSuite(model, kr.ThreatModel("L2", math.inf), attacks, 16).result(
        ops.convert_to_tensor(x), ops.convert_to_tensor(y)
    )
    alone = FMN("L2", n_iter=12)(model, x, y).distances
    assert (result.distances <= alone + 1e-6).all()
    # The first attack broke the image, whichever came nearer: accuracy after it is what it leaves.
    assert (result.distances < alone - 1e-6).any()
    found = np.isfinite(alone), np.isfinite(result.distances)
    assert (result.misclassified_at == 3 - found[0].astype(int) - found[1]).all()


@pytest.mark.parametrize(
    "attack",
    [
        PGD(kr.ThreatModel("Linf", 0.3), n_iter=20, returns="misclassified"),
        APGD(kr.ThreatModel("L2", 2.0), n_iter=20, loss="dlr", returns="misclassified"),
        APGD(kr.ThreatModel("L2", 2.0), n_iter=20, loss="targeted-margin", returns="misclassified"),
        Square(kr.ThreatModel("Linf", 0.5), n_queries=100),
        FAB(kr.ThreatModel("L2", 3.0), n_iter=8, targeted=True),
        FAB(kr.ThreatModel("L2", 3.0), n_iter=8),
    ],
    ids=lambda attack: attack.name,
)
def test_attacks_in_a_ball_aim_at_the_class_asked_for(attack):
    _, model, x, y = _linear()
    target = np.where(y == 2, 0, 2)
    x_adv = attack(model, x, y, target=target)
    answers = ops.convert_to_numpy(model(ops.convert_to_tensor(x_adv))).argmax(1)
    assert (answers == target).mean() >= 0.9
    assert attack.threat.contains(x_adv, x).all()
    everywhere = attack(model, x[y != 2], y[y != 2], target=2)
    np.testing.assert_array_equal(everywhere, attack(model, x[y != 2], y[y != 2], target=target[y != 2]))


def test_arguments_are_checked():
    _, model, x, y = _linear()
    with pytest.raises(ValueError, match=r"target must be class indices in \[0, 3\]"):
        FMN("L2")(model, x, y, target=4)
    with pytest.raises(ValueError, match="target must be a class or class indices"):
        FMN("L2")(model, x, y, target=np.eye(4, dtype="float32")[y])
    with pytest.raises(ValueError, match="threat must be one of 'Linf', 'L2', 'L1', 'L0', 'L0-pixels'"):
        FMN("l2")
    with pytest.raises(ValueError, match="threat must be one of 'L2'; received 'L1'"):
        DDN("L1")
    with pytest.raises(ValueError, match="one of the norms L0 for SigmaZero; received L2 1"):
        SigmaZero(kr.ThreatModel("L2", 1.0))
    with pytest.raises(ValueError, match="one of the norms Linf, L2, L1 for APGD; received L0 10"):
        APGD(kr.ThreatModel("L0", 10))
    with pytest.raises(ValueError, match="for APGD; received L0 10"):
        kr.attacks.AutoAttack(kr.ThreatModel("L0", 10))
    with pytest.raises(ValueError, match="finite eps for PGD; received L2 inf"):
        PGD(kr.ThreatModel("L2", math.inf))
    with pytest.raises(ValueError, match="attack must look for misclassified points in a ball"):
        RadiusSearch(FMN("L2"))
    with pytest.raises(ValueError, match=r"gamma must lie in \(0, 1\)"):
        DDN(gamma=1.0)
    with pytest.raises(ValueError, match="threat must be of the attack's norm, L2; received L1 3"):
        RadiusSearch(_apgd("L2"), threat=kr.ThreatModel("L1", 3))


@every_attack
def test_configuration_round_trip(name):
    attack = ATTACKS[name]()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(attack))
    assert type(again) is type(attack)
    assert again.get_config() == attack.get_config()
    assert repr(again) == repr(attack)
