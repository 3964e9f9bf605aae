"""Parts of residual networks (He et al., 2016) and RobArch (Peng et al., "RobArch", 2023)."""

from typing import Any

import keras
from keras import ops

from keras_robust.layers.convolution import PaddedConv2D
from keras_robust.layers.initializers import FanOutNormal
from keras_robust.layers.regularization import StochasticDepth
from keras_robust.types import Tensor

LOWEST = -60000.0  # below any activation, also in 16 bits


def batch_norm(**kwargs: Any) -> Any:
    """Batch normalisation with PyTorch's constants: epsilon 1e-5, and 0.1 of each batch in the moving statistics."""
    return keras.layers.BatchNormalization(axis=-1, momentum=0.9, epsilon=1e-5, **kwargs)


@keras.saving.register_keras_serializable("keras_robust")
class ResNetStem(keras.layers.Layer):
    """7x7 convolution of stride 2, batch norm, an activation and, with `pool`, a 3x3 maximum of stride 2.

    Args:
        channels: output channels.
        activation: name of a Keras activation.
        pool: whether the maximum follows (ResNet) or not (RobArch).

    Shapes: `(batch, height, width, 3)` to `(batch, ceil(height / s), ceil(width / s), channels)`, s = 4 with `pool` and
    2 without.

    Example:

    >>> x = ResNetStem(64)(keras.random.uniform((2, 64, 64, 3)))
    """

    def __init__(self, channels: Any, pool: bool = True, activation: str = "relu", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.activation = activation
        self._activate = keras.activations.get(activation)
        self.pool = pool
        common = {"dtype": self.dtype_policy}
        self.conv = PaddedConv2D(
            channels, 7, strides=2, padding=3, use_bias=False, kernel_initializer=FanOutNormal(), name="conv", **common
        )
        self.norm = batch_norm(name="norm", **common)

    def build(self, input_shape: Any) -> None:
        self.conv.build(input_shape)
        self.norm.build(self.conv.compute_output_shape(input_shape))

    def call(self, x: Tensor, training: bool = False) -> Any:
        x = self._activate(self.norm(self.conv(x), training=training))
        if self.pool:
            # No value of the margin is a maximum.
            x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=LOWEST)
            x = ops.max_pool(x, 3, strides=2, data_format="channels_last")
        return x

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, *sizes, channels = self.conv.compute_output_shape(input_shape)
        if self.pool:
            sizes = [size if size is None else -(-size // 2) for size in sizes]
        return (batch, *sizes, channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels, "pool": self.pool, "activation": self.activation}


@keras.saving.register_keras_serializable("keras_robust")
class SqueezeExcite(keras.layers.Layer):
    """Scale each channel by a gate in (0, 1) computed from the averages of all (Hu et al., 2018).

    Args:
        hidden: width of the hidden layer.

    Shapes: `(batch, height, width, channels)` to the same shape.

    Example:

    >>> y = SqueezeExcite(24)(keras.random.normal((2, 14, 14, 72)))
    """

    def __init__(self, hidden: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden = hidden

    def build(self, input_shape: Any) -> None:
        common = {"kernel_initializer": FanOutNormal(), "dtype": self.dtype_policy}
        self.fc1 = keras.layers.Dense(self.hidden, activation="relu", name="fc1", **common)
        self.fc2 = keras.layers.Dense(input_shape[-1], activation="sigmoid", name="fc2", **common)
        self.fc1.build((input_shape[0], input_shape[-1]))
        self.fc2.build((input_shape[0], self.hidden))

    def call(self, x: Tensor) -> Any:
        gates = self.fc2(self.fc1(ops.mean(x, axis=(1, 2))))
        return x * gates[:, None, None, :]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden": self.hidden}


class Block(keras.layers.Layer):
    """Base of the blocks of residual networks, a branch of convolutions beside a shortcut.

    Args:
        channels: output channels.
        stride: 1, or 2 to halve height and width.
        activation: name of the activation.
        drop_path_rate: probability, in [0, 1), that a sample skips the branch in training.
    """

    def __init__(
        self, channels: Any, stride: int = 1, activation: str = "relu", drop_path_rate: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.stride = stride
        self.activation = keras.activations.get(activation)
        self.drop_path_rate = drop_path_rate
        self.drop = StochasticDepth(drop_path_rate, name="drop", dtype=self.dtype_policy)

    def changes_shape(self, input_shape: Any) -> bool:
        """Whether the shortcut must be a convolution."""
        return self.stride != 1 or input_shape[-1] != self.channels

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, *sizes, _ = input_shape
        return (batch, *(n if n is None else -(-n // self.stride) for n in sizes), self.channels)

    def get_config(self) -> dict[str, Any]:
        config = {
            "channels": self.channels,
            "stride": self.stride,
            "activation": keras.activations.serialize(self.activation),
            "drop_path_rate": self.drop_path_rate,
        }
        return {**super().get_config(), **config}


class ResidualBlock(Block):
    """Base of the blocks with an activation after the sum of branch and shortcut.

    The convolutions have no biases. The shortcut is a 1x1 convolution of the same stride with batch norm where the
    shape changes.
    """

    def __init__(self, *arguments: Any, **kwargs: Any) -> None:
        super().__init__(*arguments, **kwargs)
        # Not of the class, which on PyTorch would hide those of the instance.
        self.shortcut_conv: keras.Layer | None = None
        self.shortcut_norm: keras.Layer | None = None

    def _conv(self, channels: Any, size: Any, **kwargs: Any) -> Any:
        return PaddedConv2D(
            channels, size, use_bias=False, kernel_initializer=FanOutNormal(), dtype=self.dtype_policy, **kwargs
        )

    def build(self, input_shape: Any) -> None:
        if self.changes_shape(input_shape):
            self.shortcut_conv = self._conv(self.channels, 1, strides=self.stride, name="shortcut_conv")
            self.shortcut_norm = batch_norm(dtype=self.dtype_policy, name="shortcut_norm")
            self.shortcut_conv.build(input_shape)  # type: ignore[attr-defined]
            self.shortcut_norm.build(self.compute_output_shape(input_shape))  # type: ignore[attr-defined]

    def branch(self, x: Tensor, training: bool) -> Any:
        raise NotImplementedError

    def call(self, x: Tensor, training: bool = False) -> Any:
        branch = self.drop(self.branch(x, training), training=training)
        if self.shortcut_conv is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut_conv(x), training=training)
        return self.activation(x + branch)


@keras.saving.register_keras_serializable("keras_robust")
class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions with batch norm beside a shortcut, the stride in the first.

    Args:
        channels, stride, activation, drop_path_rate: see `Block`.

    Shapes: `(batch, height, width, c)` to `(batch, ceil(height / stride), ceil(width / stride), channels)`.

    Example:

    >>> y = BasicBlock(64)(keras.random.normal((2, 56, 56, 64)))
    """

    def __init__(
        self, channels: Any, stride: int = 1, activation: str = "relu", drop_path_rate: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(channels, stride, activation, drop_path_rate, **kwargs)
        self.conv1 = self._conv(channels, 3, strides=stride, padding=1, name="conv1")
        self.norm1 = batch_norm(name="norm1", dtype=self.dtype_policy)
        self.conv2 = self._conv(channels, 3, padding=1, name="conv2")
        # At first the block is its shortcut (Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 5.1).
        self.norm2 = batch_norm(gamma_initializer="zeros", name="norm2", dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        shape = self.compute_output_shape(input_shape)
        self.conv1.build(input_shape)
        for layer in (self.norm1, self.conv2, self.norm2):
            layer.build(shape)

    def branch(self, x: Tensor, training: bool) -> Any:
        x = self.activation(self.norm1(self.conv1(x), training=training))
        return self.norm2(self.conv2(x), training=training)


@keras.saving.register_keras_serializable("keras_robust")
class Bottleneck(ResidualBlock):
    """1x1, 3x3, 1x1 convolution beside a shortcut, with the stride in the 3x3 ("v1.5").

    Batch norm follows each convolution, and the activation each but the last, whose sum with the shortcut it follows.

    Args:
        channels, stride, activation, drop_path_rate: see `Block`.
        groups: groups of the 3x3 convolution.
        first_norm: whether batch norm follows the first convolution (ResNet) or not (RobArch).
        squeeze_ratio: hidden width, as a fraction of the input channels, of a SqueezeExcite after the 3x3 convolution
            (RobArch); None for none.
        width_ratio: channels of the 3x3 convolution as a fraction of the output channels: 1/4, in wide ResNets 1/2.

    Shapes: `(batch, height, width, c)` to `(batch, ceil(height / stride), ceil(width / stride), channels)`.

    Example:

    >>> y = Bottleneck(256)(keras.random.normal((2, 56, 56, 64)))
    """

    def __init__(
        self,
        channels: Any,
        stride: int = 1,
        activation: str = "relu",
        groups: int = 1,
        first_norm: bool = True,
        squeeze_ratio: Any = None,
        drop_path_rate: float = 0.0,
        width_ratio: float = 0.25,
        **kwargs: Any,
    ) -> None:
        super().__init__(channels, stride, activation, drop_path_rate, **kwargs)
        self.groups = groups
        self.squeeze_ratio = squeeze_ratio
        self.width_ratio = width_ratio
        common = {"dtype": self.dtype_policy}
        width = round(width_ratio * channels)
        self.conv1 = self._conv(width, 1, name="conv1")
        self.norm1 = batch_norm(name="norm1", **common) if first_norm else None
        self.conv2 = self._conv(width, 3, strides=stride, padding=1, groups=groups, name="conv2")
        self.norm2 = batch_norm(name="norm2", **common)
        self.squeeze = None
        self.conv3 = self._conv(channels, 1, name="conv3")
        # At first the block is its shortcut (Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 5.1).
        self.norm3 = batch_norm(gamma_initializer="zeros", name="norm3", **common)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.conv1.build(input_shape)
        shape = self.conv1.compute_output_shape(input_shape)
        if self.norm1 is not None:
            self.norm1.build(shape)
        self.conv2.build(shape)
        shape = self.conv2.compute_output_shape(shape)
        self.norm2.build(shape)
        if self.squeeze_ratio is not None:
            hidden = round(self.squeeze_ratio * input_shape[-1])
            self.squeeze = SqueezeExcite(hidden, dtype=self.dtype_policy, name="squeeze")  # type: ignore[assignment]
            self.squeeze.build(shape)  # type: ignore[attr-defined]
        self.conv3.build(shape)
        self.norm3.build(self.compute_output_shape(input_shape))

    def branch(self, x: Tensor, training: bool) -> Any:
        x = self.conv1(x)
        if self.norm1 is not None:
            x = self.norm1(x, training=training)
        x = self.conv2(self.activation(x))
        x = self.activation(self.norm2(x, training=training))
        if self.squeeze is not None:
            x = self.squeeze(x)
        return self.norm3(self.conv3(x), training=training)

    def get_config(self) -> dict[str, Any]:
        config = {
            "groups": self.groups,
            "first_norm": self.norm1 is not None,
            "squeeze_ratio": self.squeeze_ratio,
            "width_ratio": self.width_ratio,
        }
        return {**super().get_config(), **config}
