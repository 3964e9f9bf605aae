"""Layer normalisation and exact GELU on PyTorch: Keras' own, which are PyTorch's."""

from typing import Any

from keras import ops

from keras_robust.types import Tensor


def layer_norm(x: Tensor, gamma: Any, beta: Any, epsilon: Any) -> Any:
    return ops.layer_normalization(x, gamma, beta, epsilon=epsilon)


def gelu(x: Tensor) -> Any:
    return ops.gelu(x, approximate=False)
