"""Block of pre-activation residual networks (He et al., "Identity Mappings in Deep Residual Networks", 2016)."""

from typing import Any

import keras

from keras_robust.layers.convolution import PaddedConv2D
from keras_robust.layers.initializers import FanOutNormal
from keras_robust.layers.resnet import Block, batch_norm
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class PreActBlock(Block):
    """Batch norm, activation and 3x3 convolution, twice, beside a shortcut, with the stride in the first convolution.

    The convolutions have no biases. The shortcut is a convolution of the same stride, without batch norm, where the
    shape changes.

    Args:
        channels, stride, activation, drop_path_rate: see `Block`.
        same_padding: whether a convolution of stride 2 has TensorFlow's "same" padding, zeros at the right and at the
            bottom alone where the map's sides are even; otherwise zeros on each side.
        shortcut_size: side of the shortcut's kernel, 1 or 3.
        shortcut_activated: whether the shortcut's convolution is applied to what the first batch norm and activation
            give, or to the block's input.

    Shapes: `(batch, height, width, c)` to `(batch, ceil(height / stride), ceil(width / stride), channels)`.

    Example:

    >>> y = PreActBlock(160)(keras.random.normal((2, 32, 32, 16)))
    """

    def __init__(
        self,
        channels: int,
        stride: int = 1,
        activation: str = "relu",
        same_padding: bool = False,
        shortcut_size: int = 1,
        shortcut_activated: bool = True,
        drop_path_rate: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(channels, stride, activation, drop_path_rate, **kwargs)
        self.same_padding = same_padding
        self.shortcut_size = shortcut_size
        self.shortcut_activated = shortcut_activated
        common = {"dtype": self.dtype_policy}
        self.norm1 = batch_norm(name="norm1", **common)
        self.conv1 = self._conv(3, stride, name="conv1")
        self.norm2 = batch_norm(name="norm2", **common)
        self.conv2 = self._conv(3, 1, name="conv2")
        self.shortcut: keras.Layer | None = None

    def _conv(self, size: int, stride: int, **kwargs: Any) -> keras.layers.Conv2D:
        kwargs |= {"use_bias": False, "kernel_initializer": FanOutNormal(), "dtype": self.dtype_policy}
        if self.same_padding:
            return keras.layers.Conv2D(
                self.channels, size, stride, padding="same", data_format="channels_last", **kwargs
            )
        return PaddedConv2D(self.channels, size, strides=stride, padding=size // 2, **kwargs)

    def build(self, input_shape: Any) -> None:
        shape = self.compute_output_shape(input_shape)
        self.norm1.build(input_shape)
        self.conv1.build(input_shape)
        self.norm2.build(shape)
        self.conv2.build(shape)
        if self.changes_shape(input_shape):
            self.shortcut = self._conv(self.shortcut_size, self.stride, name="shortcut")
            self.shortcut.build(input_shape)

    def call(self, x: Tensor, training: bool = False) -> Any:
        activated = self.activation(self.norm1(x, training=training))
        branch = self.activation(self.norm2(self.conv1(activated), training=training))
        branch = self.drop(self.conv2(branch), training=training)
        if self.shortcut is not None:
            x = self.shortcut(activated if self.shortcut_activated else x)
        return x + branch

    def get_config(self) -> dict[str, Any]:
        config = {
            "same_padding": self.same_padding,
            "shortcut_size": self.shortcut_size,
            "shortcut_activated": self.shortcut_activated,
        }
        return {**super().get_config(), **config}
