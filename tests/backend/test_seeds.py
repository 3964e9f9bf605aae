"""A frozen model with random layers: other noise at every call, seeds as they were."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_robust import backend


class Noisy(keras.layers.Layer):
    """Adds noise in inference mode too, as randomised defences do."""

    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), seed=self.seed_generator)


def noisy_model():
    images = keras.Input((2, 2, 1))
    return keras.Model(images, keras.layers.Flatten()(Noisy()(images)))


def test_every_call_of_one_run_draws_anew():
    x = np.zeros((1, 2, 2, 1), "float32")
    model = noisy_model()
    run = backend.compile(lambda frozen, x: tuple(frozen(x) for _ in range(4)), model)
    draws = [ops.convert_to_numpy(each)[0, 0] for each in run(ops.convert_to_tensor(x))]
    assert len(set(draws)) == 4


def test_a_loop_traced_once_draws_anew_where_the_images_move():
    def noises(frozen, x):
        def step(i, state):
            x, noise = state
            here = ops.mean(frozen(x)) - ops.mean(x)
            return x + 0.013, ops.where(ops.equal(ops.arange(6), i), here, noise)

        return ops.fori_loop(0, 6, step, (x, ops.zeros((6,))))[1]

    model = noisy_model()
    run = backend.compile(noises, model)
    draws = ops.convert_to_numpy(run(ops.zeros((1, 2, 2, 1))))
    assert len(set(np.round(draws, 5))) == 6


def test_averages_are_over_independent_draws():
    model = noisy_model()
    run = backend.compile(lambda frozen, x: ops.stack([frozen(x) for _ in range(20)]), model)
    draws = np.concatenate(
        [ops.convert_to_numpy(run(ops.full((1, 2, 2, 1), 0.1 * i)))[:, 0] - 0.1 * i for i in range(5)]
    )
    assert abs(draws.std() - 1) < 0.15  # 400 draws: five standard errors are 0.18
    assert abs(draws.mean()) < 0.25


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="TensorFlow's layers advance their seeds themselves"
)
def test_the_seeds_stay_as_they_were():
    model = noisy_model()
    (seed,) = model.non_trainable_variables
    before = ops.convert_to_numpy(seed.value).copy()
    backend.compile(lambda frozen, x: frozen(x), model)(ops.zeros((1, 2, 2, 1)))
    np.testing.assert_array_equal(ops.convert_to_numpy(seed.value), before)
