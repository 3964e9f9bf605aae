"""Square Attack: its changes against loops written from the publication, and in ball and box whatever the image."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_robust as kr
from keras_robust import random
from keras_robust.attacks.square import PROPOSALS, areas
from keras_robust.attacks.square_shapes import Eta, start

EPS = {"Linf": 0.1, "L2": 0.7, "L1": 6.0}
# JAX compiles each loop anew.
SHAPES = [(7, 9, 3), (28, 28, 1), (5, 5, 4), (12, 4, 3)][: 1 if keras.backend.backend() == "jax" else None]
every_norm = pytest.mark.parametrize("norm", EPS)


def _hill_and_valley(side, order, power):
    """Concentric rectangles added up one by one, in the upper half, and subtracted, in the lower one."""
    total = np.zeros((side, side))
    upper = side // 2
    for first, extent, sign in ((0, upper, 1.0), (upper, side - upper, -1.0)):
        bump = np.zeros((extent, side))
        for ring in range(max(extent // 2, side // 2) + 1):
            for i in range(extent):
                for j in range(side):
                    if abs(i - extent // 2) <= ring and abs(j - side // 2) <= ring:
                        bump[i, j] += 1.0 / (ring + 1) ** power
        if extent:
            total[first : first + extent] = sign * bump / np.linalg.norm(bump.ravel(), order)
    return total / np.linalg.norm(total.ravel(), order)


@pytest.mark.parametrize("side", [2, 3, 5, 6, 9, 14])
@pytest.mark.parametrize(("order", "power"), [(2, 2), (1, 4)])
def test_hill_and_valley_as_published(side, order, power):
    bumps = Eta(order, power)
    place = ops.convert_to_tensor(np.arange(-2, side + 2, dtype="float32")[None])
    sides = ops.convert_to_tensor([float(side)])
    rings = ops.convert_to_tensor(np.arange(side + 1, dtype="float32"))
    (rows, by_row), (columns, by_column) = (
        (ops.convert_to_numpy(a)[0] for a in bumps.along(place, sides, ops.convert_to_tensor([halved]), rings))
        for halved in (True, False)
    )
    shape = np.minimum(rows[:, None], columns[None]) * np.outer(by_row, by_column)
    np.testing.assert_allclose(shape[2:-2, 2:-2], _hill_and_valley(side, order, power), atol=2e-6)
    shape[2:-2, 2:-2] = 0
    assert (shape == 0).all()


def test_squares_shrink_as_published():
    # Section 4.1 and supplement: p is halved at 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000 queries.
    sizes = areas(5000, 0.8)
    for query, halvings in ((0, 0), (10, 0), (11, 1), (50, 1), (51, 2), (200, 2), (201, 3), (501, 4), (1001, 5)):
        assert sizes[query] == np.float32(0.8 / 2**halvings)
    assert sizes[2001] == np.float32(0.8 / 2**6)
    assert sizes[4999] == np.float32(0.8 / 2**7)


@every_norm
@pytest.mark.parametrize("shape", SHAPES)
def test_proposals_stay_in_ball_and_box(norm, shape):
    rng = np.random.default_rng(0)
    batch = 6
    x = rng.uniform(-0.5, 1.5, (batch, *shape)).clip(0, 1).astype("float32")
    attack = kr.attacks.Square(kr.ThreatModel(norm, EPS[norm]))
    images, labels = ops.convert_to_tensor(x), ops.zeros((batch,), "int32")
    problem = attack.problem(None, images, labels)
    problem = attack.attempt(problem, random.example_keys(0, 0, ops.arange(batch, dtype="int32")), 0, None)
    point = attack.begin(problem)[0]
    assert attack.threat.contains(ops.convert_to_numpy(point), x).all()
    proposals = PROPOSALS[norm]
    # Early and late squares, of every size.
    index = ops.convert_to_tensor(np.tile([0, 1, 3, 12, 60, 300, 700, 1500, 3000, 4999], (batch, 1)).astype("int32"))
    draws = random.numbers(problem.keys, index, proposals.n_draws + shape[-1])
    side = ops.transpose(attack._sides(images, index))
    propose = proposals.proposals(problem, side, ops.transpose(draws, (1, 0, 2)))
    for k in range(index.shape[1]):
        proposal = ops.convert_to_numpy(propose(k, point))
        assert np.isfinite(proposal).all()
        assert attack.threat.contains(proposal, x).all()
        changed = (proposal != ops.convert_to_numpy(point)).any(-1)
        if k == 0:
            # The initial change alone; L2 stretches to the surface of the ball what the box has cut off.
            assert norm == "L2" or np.abs(proposal - ops.convert_to_numpy(point)).max() < 1e-6
        elif norm == "Linf":  # one square for each image, no more
            length = ops.convert_to_numpy(side)[k]
            rows, columns = changed.any(2).sum(1), changed.any(1).sum(1)
            assert (rows <= length).all()
            assert (columns <= length).all()
            surface = np.isclose(np.abs(proposal - x), EPS[norm], atol=1e-6) | (proposal == 0) | (proposal == 1)
            assert surface.all()
        point = ops.convert_to_tensor(proposal)


def test_every_place_of_a_window_is_drawn_alike():
    draws = ops.convert_to_tensor(((np.arange(400) + 0.5) / 400).astype("float32"))
    first = ops.convert_to_numpy(start(draws, ops.convert_to_tensor(3.0), 6))
    assert np.unique(first, return_counts=True)[1].tolist() == [100, 100, 100, 100]
    assert first.min() == 0
    assert first.max() == 3


@every_norm
def test_breaks_a_model_whose_gradients_are_zero(norm):
    rng = np.random.default_rng(0)
    kernel = ops.convert_to_tensor(rng.normal(size=(108, 3)).astype("float32"))

    def model(images):
        return ops.round(8 * ops.matmul(ops.reshape(images, (-1, 108)) - 0.5, kernel))

    x = (0.5 + 0.1 * rng.normal(size=(6, 6, 6, 3))).astype("float32").clip(0, 1)
    y = ops.convert_to_numpy(model(ops.convert_to_tensor(x))).argmax(1).astype("int32")
    x_adv = kr.attacks.Square(kr.ThreatModel(norm, 2 * EPS[norm]), n_queries=40)(model, x, y)
    assert (ops.convert_to_numpy(model(ops.convert_to_tensor(x_adv))).argmax(1) != y).mean() > 0.5
    with pytest.warns(UserWarning, match="Zero gradients"):
        x_adv = kr.attacks.APGD(kr.ThreatModel(norm, 2 * EPS[norm]), n_iter=5)(model, x, y)
    assert (ops.convert_to_numpy(model(ops.convert_to_tensor(x_adv))).argmax(1) == y).all()
