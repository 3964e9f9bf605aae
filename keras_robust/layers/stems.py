"""Stems: from pixels to the first feature map."""

import math
from typing import Any

import keras

from keras_robust.layers.activations import gelu
from keras_robust.layers.convolution import PaddedConv2D
from keras_robust.layers.initializers import FanInUniform, Normal
from keras_robust.layers.normalization import LayerNorm
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class PatchStem(keras.layers.Layer):
    """Cut the image into square patches and project each to a vector: one convolution of size and stride `stride`.

    Args:
        channels: length of the vectors.
        stride: side of a patch, in pixels; what is left over at the right and the bottom is not used.
        norm_epsilon: epsilon of a LayerNorm that follows (ConvNeXt, Swin); None for none (ViT).

    Shapes: `(batch, height, width, 3)` to `(batch, height // stride, width // stride, channels)`.

    Example:

    >>> patches = PatchStem(384, stride=16)(keras.random.uniform((2, 64, 64, 3)))
    """

    def __init__(self, channels: Any, stride: Any, norm_epsilon: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.stride = stride
        common = {"kernel_initializer": Normal(), "dtype": self.dtype_policy}
        self.proj = PaddedConv2D(channels, stride, strides=stride, name="proj", **common)
        self.norm = None
        if norm_epsilon is not None:
            self.norm = LayerNorm(norm_epsilon, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: Any) -> None:
        self.proj.build(input_shape)
        if self.norm is not None:
            self.norm.build(self.proj.compute_output_shape(input_shape))

    def call(self, x: Tensor) -> Any:
        x = self.proj(x)
        return x if self.norm is None else self.norm(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.proj.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        epsilon = None if self.norm is None else self.norm.epsilon  # type: ignore[has-type]
        config = {"channels": self.channels, "stride": self.stride, "norm_epsilon": epsilon}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("keras_robust")
class ConvStem(keras.layers.Layer):
    """3x3 convolutions, each followed by LayerNorm and GELU, that shrink the image step by step.

    Singh et al., "Revisiting Adversarial Training for ImageNet", 2023: in place of a PatchStem it makes models more
    robust, most of all to threat models not seen in training.

    Args:
        channels: output channels of each 3x3 convolution.
        stride: total stride, a power of two. The first convolutions halve height and width until it is reached, the
            others keep them.
        out_channels: channels of a last 1x1 convolution, without norm and GELU; None for no such convolution.

    Shapes: `(batch, height, width, 3)` to `(batch, ceil(height / stride), ceil(width / stride), c)` with `c` the
    `out_channels`, or the last of `channels`.

    Raises:
        ValueError: `stride` is not a power of two or needs more convolutions than `channels` has.

    Example:

    >>> patches = ConvStem((48, 96, 192, 384), stride=16, out_channels=384)(keras.random.uniform((2, 64, 64, 3)))
    """

    def __init__(self, channels: Any, stride: Any, out_channels: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = tuple(channels)
        self.stride = stride
        self.out_channels = out_channels
        if stride not in [2**n for n in range(len(self.channels) + 1)]:
            raise ValueError(
                f"stride must be a power of two up to 2**len(channels), received stride={stride}, channels={channels}"
            )
        self.convs, self.norms = [], []
        for i, width in enumerate(self.channels):
            self.convs.append(self._conv(width, 3, strides=2 if 2**i < stride else 1, padding=1, name=f"conv_{i}"))
            self.norms.append(LayerNorm(dtype=self.dtype_policy, name=f"norm_{i}"))
        self.proj = None if out_channels is None else self._conv(out_channels, 1, name="proj")

    def _conv(self, channels: Any, size: Any, **kwargs: Any) -> Any:
        return PaddedConv2D(channels, size, kernel_initializer=FanInUniform(), dtype=self.dtype_policy, **kwargs)

    def build(self, input_shape: Any) -> None:
        shape = input_shape
        for conv, norm in zip(self.convs, self.norms):
            _build_as_pytorch(conv, shape)
            shape = conv.compute_output_shape(shape)
            norm.build(shape)
        if self.proj is not None:
            _build_as_pytorch(self.proj, shape)

    def call(self, x: Tensor) -> Any:
        for conv, norm in zip(self.convs, self.norms):
            x = gelu(norm(conv(x)))
        return x if self.proj is None else self.proj(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        shape = input_shape
        for conv in self.convs:
            shape = conv.compute_output_shape(shape)
        return shape if self.proj is None else self.proj.compute_output_shape(shape)

    def get_config(self) -> dict[str, Any]:
        config = {"channels": self.channels, "stride": self.stride, "out_channels": self.out_channels}
        return {**super().get_config(), **config}


def _build_as_pytorch(conv: PaddedConv2D, input_shape: Any) -> None:
    """Builds a convolution with PyTorch's own initial weights, random biases too, as the published stems have.

    Biases of zero would leave flat black regions, as RandAugment makes them, at exactly 0 in front of the layer norm,
    which amplifies the smallest change of them to unit size.
    """
    conv.bias_initializer = FanInUniform(math.prod(conv.kernel_size) * input_shape[-1])
    conv.build(input_shape)
