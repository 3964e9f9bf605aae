"""Parts of the cross-covariance image transformer (El-Nouby et al., "XCiT", 2021).

Blocks work on feature maps, `(batch, rows, columns, channels)`, until the class token joins.
"""

import math
from typing import Any

import keras
from keras import ops

from keras_robust.backend.kernels import attention, softmax
from keras_robust.layers.activations import gelu
from keras_robust.layers.convolution import PaddedConv2D
from keras_robust.layers.depthwise import SameDepthwiseConv2D
from keras_robust.layers.initializers import Normal
from keras_robust.layers.mlp import Mlp
from keras_robust.layers.normalization import LayerNorm
from keras_robust.layers.regularization import LayerScale, StochasticDepth
from keras_robust.layers.resnet import batch_norm
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class XCiTStem(keras.layers.Layer):
    """Four 3x3 convolutions of stride 2 without biases, each with batch norm, GELU between them.

    Args:
        channels: output channels; the convolutions have an eighth, a quarter, a half and all of them.

    Shapes: `(batch, height, width, 3)` to `(batch, ceil(height / 16), ceil(width / 16), channels)`.

    Example:

    >>> x = XCiTStem(384)(keras.random.uniform((2, 64, 64, 3)))
    """

    def __init__(self, channels: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        common = {"dtype": self.dtype_policy}
        self.convs, self.norms = [], []
        for i, part in enumerate((8, 4, 2, 1)):
            conv = PaddedConv2D(
                channels // part,
                3,
                strides=2,
                padding=1,
                use_bias=False,
                kernel_initializer=Normal(),
                name=f"conv_{i}",
                **common,
            )
            self.convs.append(conv)
            self.norms.append(batch_norm(name=f"norm_{i}", **common))

    def build(self, input_shape: Any) -> None:
        shape = input_shape
        for conv, norm in zip(self.convs, self.norms):
            conv.build(shape)
            shape = conv.compute_output_shape(shape)
            norm.build(shape)

    def call(self, x: Tensor, training: bool = False) -> Any:
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            x = norm(conv(gelu(x) if i > 0 else x), training=training)
        return x

    def compute_output_shape(self, input_shape: Any) -> Any:
        shape = input_shape
        for conv in self.convs:
            shape = conv.compute_output_shape(shape)
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels}


@keras.saving.register_keras_serializable("keras_robust")
class FourierPosition(keras.layers.Layer):
    """Add a learned projection of sines and cosines of the row and the column, for a grid of any size.

    Args:
        num_frequencies: numbers that code the row, and as many that code the column; even.

    Shapes: `(batch, rows, columns, channels)` to the same shape.

    Example:

    >>> x = FourierPosition()(keras.random.normal((2, 14, 14, 384)))
    """

    def __init__(self, num_frequencies: int = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_frequencies = num_frequencies

    def build(self, input_shape: Any) -> None:
        self.proj = keras.layers.Dense(
            input_shape[-1], kernel_initializer=Normal(), dtype=self.dtype_policy, name="proj"
        )
        self.proj.build((*input_shape[1:3], 2 * self.num_frequencies))

    def call(self, x: Tensor) -> Any:
        rows, columns = ops.shape(x)[1:3]
        shape = (rows, columns, self.num_frequencies)
        row_code = ops.broadcast_to(self._code(rows)[:, None], shape)
        column_code = ops.broadcast_to(self._code(columns), shape)
        return x + self.proj(ops.concatenate([row_code, column_code], axis=-1))

    def _code(self, n: Any) -> Any:
        # Positions 1..n on the circle; pairs of channels share a frequency, the first has the sine.
        angle = 2 * math.pi * ops.cast(ops.arange(1, n + 1), "float32") / (ops.cast(n, "float32") + 1e-6)
        channel = ops.arange(self.num_frequencies)
        frequency = 1e4 ** (-2 * ops.cast(channel // 2, "float32") / self.num_frequencies)
        angles = angle[:, None] * frequency
        return ops.where(channel % 2 == 0, ops.sin(angles), ops.cos(angles))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_frequencies": self.num_frequencies}


@keras.saving.register_keras_serializable("keras_robust")
class CrossCovarianceAttention(keras.layers.Layer):
    """Attention among channels: the weights are a softmax of the covariances of queries and keys over the positions.

    Queries and keys are scaled to unit length over the positions; a learned temperature per head multiplies their
    products.

    Args:
        num_heads: number of heads; divides the number of channels.

    Shapes: `(batch, rows, columns, channels)` to the same shape.

    Example:

    >>> y = CrossCovarianceAttention(num_heads=8)(keras.random.normal((2, 14, 14, 384)))
    """

    def __init__(self, num_heads: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        common = {"kernel_initializer": Normal(), "dtype": self.dtype_policy}
        self.qkv = keras.layers.Dense(3 * channels, name="qkv", **common)
        self.proj = keras.layers.Dense(channels, name="proj", **common)
        self.qkv.build(input_shape)
        self.proj.build(input_shape)
        self.temperature = self.add_weight(name="temperature", shape=(self.num_heads,), initializer="ones")

    def call(self, x: Tensor) -> Any:
        _, rows, columns, channels = ops.shape(x)
        qkv = ops.reshape(self.qkv(x), (-1, rows * columns, 3, self.num_heads, channels // self.num_heads))
        q, k, v = ops.unstack(qkv, axis=2)
        scores = ops.einsum("bnhd,bnhe->bhde", _unit_length(q), _unit_length(k)) * self.temperature[:, None, None]
        y = ops.einsum("bhde,bnhe->bnhd", softmax(scores), v)
        return self.proj(ops.reshape(y, (-1, rows, columns, channels)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads}


def _unit_length(x: Tensor) -> Any:
    # Sums over thousands of positions, in float32 (at least).
    exact = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
    return ops.cast(exact * ops.rsqrt(ops.maximum(ops.sum(exact * exact, axis=1, keepdims=True), 1e-24)), x.dtype)


@keras.saving.register_keras_serializable("keras_robust")
class LocalPatchInteraction(keras.layers.Layer):
    """Depthwise 3x3 convolution, GELU, batch norm, depthwise 3x3 convolution.

    Shapes: `(batch, rows, columns, channels)` to the same shape.

    Example:

    >>> y = LocalPatchInteraction()(keras.random.normal((2, 14, 14, 384)))
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        common = {"depthwise_initializer": Normal(), "dtype": self.dtype_policy}
        self.conv1 = SameDepthwiseConv2D(3, name="conv1", **common)
        self.norm = batch_norm(dtype=self.dtype_policy, name="norm")
        self.conv2 = SameDepthwiseConv2D(3, name="conv2", **common)

    def build(self, input_shape: Any) -> None:
        for layer in (self.conv1, self.norm, self.conv2):
            layer.build(input_shape)

    def call(self, x: Tensor, training: bool = False) -> Any:
        return self.conv2(self.norm(gelu(self.conv1(x)), training=training))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@keras.saving.register_keras_serializable("keras_robust")
class XCiTBlock(keras.layers.Layer):
    """Cross-covariance attention, local patch interaction and MLP, each as `x + scale(layer(norm(x)))`.

    Args:
        num_heads: number of attention heads; divides the number of channels.
        layer_scale_init: initial value of the per-channel scales.
        drop_path_rate: probability, in [0, 1), that a sample skips a branch in training.

    Shapes: `(batch, rows, columns, channels)` to the same shape.

    Example:

    >>> y = XCiTBlock(num_heads=8)(keras.random.normal((2, 14, 14, 384)))
    """

    def __init__(
        self, num_heads: Any, layer_scale_init: float = 1.0, drop_path_rate: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.layer_scale_init = layer_scale_init
        self.drop_path_rate = drop_path_rate
        common = {"dtype": self.dtype_policy}
        self.norm1 = LayerNorm(name="norm1", **common)
        self.attn = CrossCovarianceAttention(num_heads, name="attn", **common)
        self.scale1 = LayerScale(layer_scale_init, name="scale1", **common)
        # The published checkpoints number the branches 1, 3, 2.
        self.norm3 = LayerNorm(name="norm3", **common)
        self.local = LocalPatchInteraction(name="local", **common)
        self.scale3 = LayerScale(layer_scale_init, name="scale3", **common)
        self.norm2 = LayerNorm(name="norm2", **common)
        self.mlp = Mlp(ratio=4, name="mlp", **common)
        self.scale2 = LayerScale(layer_scale_init, name="scale2", **common)
        self.drop = StochasticDepth(drop_path_rate, name="drop", **common)

    def build(self, input_shape: Any) -> None:
        for layer in (self.norm1, self.attn, self.scale1, self.norm3, self.local, self.scale3):
            layer.build(input_shape)
        for layer in (self.norm2, self.mlp, self.scale2):
            layer.build(input_shape)

    def call(self, x: Tensor, training: bool = False) -> Any:
        x = x + self.drop(self.scale1(self.attn(self.norm1(x))), training=training)
        x = x + self.drop(self.scale3(self.local(self.norm3(x), training=training)), training=training)
        return x + self.drop(self.scale2(self.mlp(self.norm2(x))), training=training)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config = {
            "num_heads": self.num_heads,
            "layer_scale_init": self.layer_scale_init,
            "drop_path_rate": self.drop_path_rate,
        }
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("keras_robust")
class ClassAttention(keras.layers.Layer):
    """Attention of the class token to all tokens (Touvron et al., "Going deeper with Image Transformers", 2021).

    Args:
        num_heads: number of heads; divides the number of channels.

    Shapes: `(batch, tokens, channels)`, class token first, to `(batch, 1, channels)`.

    Example:

    >>> y = ClassAttention(num_heads=8)(keras.random.normal((2, 197, 384)))
    """

    def __init__(self, num_heads: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def build(self, input_shape: Any) -> None:
        common = {"kernel_initializer": Normal(), "dtype": self.dtype_policy}
        self.q, self.k, self.v, self.proj = (
            keras.layers.Dense(input_shape[-1], name=name, **common) for name in ("q", "k", "v", "proj")
        )
        for layer in (self.q, self.k, self.v, self.proj):
            layer.build(input_shape)

    def call(self, x: Tensor) -> Any:
        channels = x.shape[-1]
        head_dim = channels // self.num_heads
        q = ops.reshape(self.q(x[:, :1]), (-1, 1, self.num_heads, head_dim))
        k, v = (ops.reshape(f(x), (-1, ops.shape(x)[1], self.num_heads, head_dim)) for f in (self.k, self.v))
        return self.proj(ops.reshape(attention(q, k, v), (-1, 1, channels)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0], 1, input_shape[2]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads}


@keras.saving.register_keras_serializable("keras_robust")
class ClassAttentionBlock(keras.layers.Layer):
    """The class token attends to all tokens, then passes an MLP; as published, the other tokens change as well.

    Args:
        num_heads: number of attention heads; divides the number of channels.
        layer_scale_init: initial value of the per-channel scales.

    Shapes: `(batch, tokens, channels)`, class token first, to the same shape.

    Example:

    >>> y = ClassAttentionBlock(num_heads=8)(keras.random.normal((2, 197, 384)))
    """

    def __init__(self, num_heads: Any, layer_scale_init: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.layer_scale_init = layer_scale_init
        common = {"dtype": self.dtype_policy}
        self.norm1 = LayerNorm(name="norm1", **common)
        self.attn = ClassAttention(num_heads, name="attn", **common)
        self.scale1 = LayerScale(layer_scale_init, name="scale1", **common)
        self.norm2 = LayerNorm(name="norm2", **common)
        self.mlp = Mlp(ratio=4, name="mlp", **common)
        self.scale2 = LayerScale(layer_scale_init, name="scale2", **common)

    def build(self, input_shape: Any) -> None:
        for layer in (self.norm1, self.attn, self.scale1, self.norm2, self.mlp, self.scale2):
            layer.build(input_shape)

    def call(self, x: Tensor) -> Any:
        normed = self.norm1(x)
        # In the published models the branch holds the patches' normalised vectors where they do not attend, and the
        # second one the patches themselves: hence the sum of all tokens here, and the factor 2 below.
        x = self.norm2(x + self.scale1(ops.concatenate([self.attn(normed), normed[:, 1:]], axis=1)))
        class_token, patches = x[:, :1], x[:, 1:]
        return ops.concatenate([class_token + self.scale2(self.mlp(class_token)), 2 * patches], axis=1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads, "layer_scale_init": self.layer_scale_init}
