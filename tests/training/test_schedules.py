"""The published schedule against values worked out by hand from its formula."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_robust.training import WarmupCosine, WarmupPolynomial
from keras_robust.training.schedules import PerUpdate

# Peak 1e-3, from 1e-7, to 5e-6; 50 epochs, 10 of warm-up, 4 updates per epoch. cos(pi / 4) = 0.70710678,
# cos(pi / 40) = 0.99691733.
BY_HAND = {
    0: 1e-7,
    1: 2.50975e-5,  # a quarter of the way from 1e-7 to 1.0009e-4
    4: 1.0009e-4,
    20: 5.0005e-4,
    40: 1e-3,
    42: 9.9923318e-4,  # halfway from 1e-3 to 5e-6 + 4.975e-4 x 1.99691733 = 9.9846637e-4
    80: 8.5428562e-4,  # epoch 20: 5e-6 + 4.975e-4 x 1.70710678
    120: 5.025e-4,
    160: 1.5071438e-4,
    200: 5e-6,
    1000: 5e-6,
}


def test_values_by_hand():
    schedule = WarmupCosine(1e-3, epochs=50, steps_per_epoch=4)
    assert schedule.warmup_epochs == 10
    for step, expected in BY_HAND.items():
        assert float(schedule(ops.convert_to_tensor(step))) == pytest.approx(expected, rel=2e-7)


@pytest.mark.parametrize(("epochs", "warmup"), [(50, 10), (100, 10), (110, 20), (300, 20), (25, 5), (3, 0), (1, 0)])
def test_default_warmup(epochs, warmup):
    schedule = WarmupCosine(1e-3, epochs, 1)
    assert schedule.warmup_epochs == warmup
    assert float(schedule(warmup)) == pytest.approx(1e-3)


def test_linear_inside_an_epoch():
    """Not the cosine itself: epoch 3 of 5 without warm-up, 7 updates."""
    schedule = WarmupCosine(2.0, 5, 7, warmup_epochs=0, final=0.0)
    rates = [float(schedule(21 + i)) for i in range(8)]
    np.testing.assert_allclose(rates, np.linspace(1 + np.cos(0.6 * np.pi), 1 + np.cos(0.8 * np.pi), 8), rtol=1e-6)


def test_in_the_optimizer_and_saved():
    schedule = PerUpdate(WarmupCosine(1e-3, epochs=50, steps_per_epoch=4), 3)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    for micro_batch in (0, 2, 3, 127):
        assert float(again(micro_batch)) == float(schedule(micro_batch))
    assert float(schedule(128)) == pytest.approx(BY_HAND[42])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be an integer >= 1; received 0"),
        ({"warmup_epochs": 4}, "warmup_epochs must be at most epochs=3; received 4"),
        ({"peak": -1.0}, "peak must be a finite number"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WarmupCosine(**{"peak": 1e-3, "epochs": 3, "steps_per_epoch": 2, **options})


def test_polynomial_decay_by_hand():
    """Peak 1e-3 from 1e-8; 50 epochs of 4 updates, 10 of warm-up: as published for segmentation, and with power 0.9."""
    linear = WarmupPolynomial(1e-3, epochs=50, steps_per_epoch=4, warmup_epochs=10)
    by_hand = {0: 1e-8, 10: 2.500075e-4, 40: 1e-3, 80: 7.5e-4, 160: 2.5e-4, 199: 6.25e-6, 200: 0.0, 1000: 0.0}
    for step, expected in by_hand.items():
        assert float(linear(ops.convert_to_tensor(step))) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    bent = WarmupPolynomial(2.0, epochs=10, steps_per_epoch=1, power=0.9)
    assert float(bent(ops.convert_to_tensor(5))) == pytest.approx(2 * 0.5358867, rel=1e-6)
    assert WarmupPolynomial.from_config(linear.get_config()).get_config() == linear.get_config()
    with pytest.raises(ValueError, match="warmup_epochs must be less than epochs=2; received 2"):
        WarmupPolynomial(1.0, epochs=2, steps_per_epoch=1, warmup_epochs=2)
