"""What Keras offers itself, for the backends that have nothing better."""

from typing import Any

import keras
from keras import ops

from keras_robust.types import Tensor


def gelu(x: Tensor) -> Any:
    return ops.gelu(x, approximate=False)


def convolution(x: Tensor, kernel: Tensor, strides: Any, margin: int, dilation: Any) -> Any:
    padding = "valid"
    if tuple(strides) == tuple(dilation) == (1, 1) and tuple(kernel.shape[:2]) == (2 * margin + 1,) * 2:
        padding = "same"  # which here pads the four sides alike, without a copy of the input
    elif margin:
        x = ops.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    return ops.conv(x, kernel, strides, padding, data_format="channels_last", dilation_rate=dilation)


def softmax(x: Tensor) -> Any:
    return ops.cast(ops.softmax(ops.cast(x, keras.backend.result_type(x.dtype, "float32"))), x.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Any:
    # Not ops.dot_product_attention: on the CPU it is slower on TensorFlow and fails in float16 on JAX.
    weights = softmax(ops.einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k))
    return ops.einsum("bhqk,bkhd->bqhd", weights, v)
