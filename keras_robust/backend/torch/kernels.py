"""Layer normalisation, exact GELU and depthwise convolution on PyTorch: Keras' own, which are PyTorch's."""

from typing import Any

from keras import ops

from keras_robust.types import Tensor


def layer_norm(x: Tensor, gamma: Any, beta: Any, epsilon: Any) -> Any:
    return ops.layer_normalization(x, gamma, beta, epsilon=epsilon)


def gelu(x: Tensor) -> Any:
    return ops.gelu(x, approximate=False)


def depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    return ops.depthwise_conv(x, kernel, strides=1, padding="same", data_format="channels_last")
