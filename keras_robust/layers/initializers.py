"""Weight initialisation.

Drawn on the host: after `keras.utils.set_random_seed(...)` every backend gets the same weights, which is not so with
Keras' own initializers; nothing is compiled, and 200 million weights take seconds.
"""

import math
import random
from functools import cache
from statistics import NormalDist
from typing import Any

import keras
import numpy as np

from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class TruncatedNormal(keras.initializers.Initializer):
    """Normal distribution around 0, cut at two standard deviations.

    Args:
        stddev: standard deviation before the cut.

    Example:

    >>> kernel = TruncatedNormal(0.02)((3, 3, 48, 96))
    """

    def __init__(self, stddev: float = 0.02) -> None:
        self.stddev = stddev

    def __call__(self, shape: tuple[Any, ...], dtype: str | None = None) -> Tensor:
        # Python's generator is the one that Keras seeds its own initializers from.
        generator = np.random.default_rng(random.getrandbits(64))
        values = _quantiles(self.stddev)[generator.integers(0, 2**16, size=shape, dtype="uint16")]
        return keras.ops.convert_to_tensor(values, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"stddev": self.stddev}


@keras.saving.register_keras_serializable("keras_robust")
class FanOutNormal(keras.initializers.Initializer):
    """Truncated normal of variance 2 / (kernel area x output channels), for convolutions followed by a ReLU.

    He et al., "Delving Deep into Rectifiers", 2015, equation 14.

    Example:

    >>> kernel = FanOutNormal()((3, 3, 64, 64))
    """

    def __call__(self, shape: tuple[int, int, int, int], dtype: Any = None) -> Tensor:
        fan_out = math.prod(shape) // shape[-2]
        # The cut at two standard deviations takes 22.6 % of the variance.
        return TruncatedNormal(math.sqrt(2 / fan_out / 0.7737413))(shape, dtype)


@cache
def _quantiles(stddev: float) -> np.ndarray:
    # Equally likely values: a draw is a table look-up, several times faster than a normal deviate with rejection.
    return np.float32(stddev) * _standard_quantiles()


@cache
def _standard_quantiles() -> np.ndarray:
    normal = NormalDist()
    low, high = normal.cdf(-2), normal.cdf(2)
    fractions = (np.arange(2**16) + 0.5) / 2**16
    return np.array([normal.inv_cdf(low + f * (high - low)) for f in fractions], "float32")
