"""Attention among the tokens of an image."""

from typing import Any

import keras
from keras import ops

from keras_robust.backend import kernels
from keras_robust.layers.initializers import Normal
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class Attention(keras.layers.Layer):
    """Multi-head self-attention (Vaswani et al., "Attention Is All You Need", 2017), with biases throughout.

    Args:
        num_heads: number of heads; divides the number of channels.

    Shapes: `(batch, tokens, channels)` to the same shape.

    Raises:
        ValueError: at build time, `num_heads` does not divide the number of channels.

    Example:

    >>> y = Attention(num_heads=6)(keras.random.normal((2, 197, 384)))
    """

    def __init__(self, num_heads: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        if channels % self.num_heads:
            raise ValueError(f"num_heads must divide the {channels} channels, received {self.num_heads}")
        common = {"dtype": self.dtype_policy}
        # One product for queries, keys and values is faster than three.
        self.qkv = keras.layers.Dense(3 * channels, kernel_initializer=Normal(), name="qkv", **common)
        self.proj = keras.layers.Dense(channels, kernel_initializer=Normal(), name="proj", **common)
        self.qkv.build(input_shape)
        self.proj.build(input_shape)

    def call(self, x: Tensor) -> Any:
        _, tokens, channels = ops.shape(x)
        head_dim = channels // self.num_heads
        q, k, v = ops.unstack(ops.reshape(self.qkv(x), (-1, tokens, 3, self.num_heads, head_dim)), axis=2)
        return self.proj(ops.reshape(kernels.attention(q, k, v), (-1, tokens, channels)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads}
