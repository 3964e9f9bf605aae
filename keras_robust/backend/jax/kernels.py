"""Layer normalisation and exact GELU on JAX: Keras' own lose digits, or are good enough."""

from typing import Any

import keras
from keras import ops

from keras_robust.types import Tensor


def layer_norm(x: Tensor, gamma: Any, beta: Any, epsilon: Any) -> Any:
    # Not Keras' x * scale + (beta - mean * scale), which loses the digits that mean and x have in common.
    wide = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
    centred = wide - ops.mean(wide, axis=-1, keepdims=True)
    scale = ops.rsqrt(ops.mean(ops.square(centred), axis=-1, keepdims=True) + epsilon)
    return ops.cast(centred * scale * gamma + beta, x.dtype)


def gelu(x: Tensor) -> Any:
    return ops.gelu(x, approximate=False)
