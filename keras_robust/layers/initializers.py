"""Weight initialisation."""

import random
from functools import cache
from statistics import NormalDist

import keras
import numpy as np


@keras.saving.register_keras_serializable("keras_robust")
class TruncatedNormal(keras.initializers.Initializer):
    """Normal distribution around 0, cut at two standard deviations, drawn on the host.

    After `keras.utils.set_random_seed(...)` every backend draws the same weights, which is not so with
    `keras.initializers.TruncatedNormal`; nothing is compiled, and 200 million weights take seconds.

    Args:
        stddev: standard deviation before the cut.

    Example:

    >>> kernel = TruncatedNormal(0.02)((3, 3, 48, 96))
    """

    def __init__(self, stddev=0.02):
        self.stddev = stddev

    def __call__(self, shape, dtype=None):
        # Python's generator is the one that Keras seeds its own initializers from.
        generator = np.random.default_rng(random.getrandbits(64))
        values = _quantiles(self.stddev)[generator.integers(0, 2**16, size=shape, dtype="uint16")]
        return keras.ops.convert_to_tensor(values, dtype=dtype)

    def get_config(self):
        return {"stddev": self.stddev}


@cache
def _quantiles(stddev):
    # Equally likely values: a draw is a table look-up, several times faster than a normal deviate with rejection.
    normal = NormalDist()
    low, high = normal.cdf(-2), normal.cdf(2)
    fractions = (np.arange(2**16) + 0.5) / 2**16
    return np.array([stddev * normal.inv_cdf(low + f * (high - low)) for f in fractions], "float32")
