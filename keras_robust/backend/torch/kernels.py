"""PyTorch: layer normalisation as Keras calls it; convolutions and attention without Keras' copies."""

from typing import Any

import keras
from keras import ops
from torch.nn import functional

from keras_robust.backend import keras_kernels
from keras_robust.backend.keras_kernels import gelu
from keras_robust.types import Tensor

__all__ = ["attention", "convolution", "depthwise", "gelu", "layer_norm"]


def layer_norm(x: Tensor, gamma: Any, beta: Any, epsilon: Any) -> Any:
    return ops.layer_normalization(x, gamma, beta, epsilon=epsilon)


def convolution(x: Tensor, kernel: Any, strides: Any, margin: int, dilation: Any) -> Any:
    kernel = ops.convert_to_tensor(kernel).permute(3, 2, 0, 1)
    return _convolution(x, kernel, stride=strides, padding=margin, dilation=dilation)


def depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    rows, columns, channels, multiplier = kernel.shape
    kernel = kernel.reshape(rows, columns, 1, channels * multiplier).permute(3, 2, 0, 1)
    return _convolution(x, kernel, padding=(rows // 2, columns // 2))


def _convolution(x: Tensor, kernel: Any, **options: Any) -> Any:
    """The convolution of `x` (batch, height, width, channels) with `kernel` (filters, inputs, rows, columns).

    Keras 3.15 copies each map to channels-first and back, and a margin is a third copy. Seen through `permute`, a map
    whose channels lie side by side is in PyTorch's channels-last format as it is, and comes out in it.
    """
    x = ops.convert_to_tensor(x).permute(0, 3, 1, 2)
    return functional.conv2d(x, kernel, groups=x.shape[1] // kernel.shape[1], **options).permute(0, 2, 3, 1)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if isinstance(q, keras.KerasTensor):  # on a graph, where multiply-adds are counted
        return keras_kernels.attention(q, k, v)
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
