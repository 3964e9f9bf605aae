import time

import keras
import numpy as np
import pytest

from keras_robust.data.input_clock import InputClock

PAUSE = 0.02


class Slow(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        time.sleep(PAUSE)
        return np.full((2, 1), index), np.zeros(2)


def test_the_wait_for_batches_is_measured_and_nothing_else():
    clock = InputClock()
    timed = clock.timed(Slow())
    assert timed.num_batches == 3
    for index in range(3):
        assert timed[index][0][0, 0] == index
        time.sleep(5 * PAUSE)
    assert clock.batches == 3
    assert 3 * PAUSE <= clock.waited < 8 * PAUSE
    assert clock.share(10 * PAUSE) == pytest.approx(clock.waited / (30 * PAUSE))
    clock.reset()
    assert clock.share(1.0) is None
