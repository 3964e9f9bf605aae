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
class Normal(keras.initializers.Initializer):
    """Normal distribution around 0.

    What timm's and the original codes call truncated is cut at -2 and 2, a hundred standard deviations away.

    Args:
        stddev: standard deviation.

    Example:

    >>> kernel = Normal(0.02)((3, 3, 48, 96))
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
    """Normal distribution of variance 2 / (kernel area x output channels), for convolutions followed by a ReLU.

    He et al., "Delving Deep into Rectifiers", 2015, equation 14.

    Example:

    >>> kernel = FanOutNormal()((3, 3, 64, 64))
    """

    def __call__(self, shape: tuple[int, int, int, int], dtype: Any = None) -> Tensor:
        fan_out = math.prod(shape) // shape[-2]
        return Normal(math.sqrt(2 / fan_out))(shape, dtype)


@keras.saving.register_keras_serializable("keras_robust")
class FanInUniform(keras.initializers.Initializer):
    """Uniform distribution within 1 / sqrt(fan_in) of 0: what PyTorch gives kernels and biases of convolutions.

    Args:
        fan_in: number of inputs of each output, kernel area x input channels; of a kernel's shape if not given.

    Example:

    >>> kernel = FanInUniform()((3, 3, 3, 48))
    >>> bias = FanInUniform(27)((48,))
    """

    def __init__(self, fan_in: int | None = None) -> None:
        self.fan_in = fan_in

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        bound = 1 / math.sqrt(self.fan_in or math.prod(shape[:-1]))
        generator = np.random.default_rng(random.getrandbits(64))
        values = generator.uniform(-bound, bound, shape).astype("float32")
        return keras.ops.convert_to_tensor(values, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"fan_in": self.fan_in}


@cache
def _quantiles(stddev: float) -> np.ndarray:
    # Equally likely values: a draw is a table look-up, several times faster than a normal deviate with rejection.
    return np.float32(stddev) * _standard_quantiles()


@cache
def _standard_quantiles() -> np.ndarray:
    normal = NormalDist()
    return np.array([normal.inv_cdf((place + 0.5) / 2**16) for place in range(2**16)], "float32")
