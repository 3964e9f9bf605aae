"""Depthwise convolution."""

from typing import Any

import keras
from keras import ops

from keras_robust.backend import kernels
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class SameDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """Depthwise convolution of stride 1 that keeps height and width, fast on maps smaller than its kernel.

    On a 2x2 map only the central 3x3 taps of a 7x7 kernel ever meet a value, the others meet the padding. They are
    left out where height and width are known: the result is the same, and on the CPU the gradient with respect to the
    kernel, which is slow for kernels larger than the map, takes a small part of the time.

    Args:
        kernel_size: side of the kernel, odd.
        **kwargs: as for `keras.layers.DepthwiseConv2D`.

    Shapes: `(batch, height, width, channels)` to the same shape.

    Raises:
        ValueError: `kernel_size` is even, or strides or dilation are not 1.

    Example:

    >>> y = SameDepthwiseConv2D(7)(keras.random.normal((2, 8, 8, 96)))
    """

    def __init__(self, kernel_size: Any, **kwargs: Any) -> None:
        super().__init__(kernel_size, padding="same", data_format="channels_last", **kwargs)
        if not all(size % 2 for size in self.kernel_size):
            raise ValueError(f"kernel_size must be odd, received {kernel_size!r}")
        if self.strides != (1, 1) or self.dilation_rate != (1, 1):
            raise ValueError(f"strides and dilation_rate must be 1, received {self.strides} and {self.dilation_rate}")

    def call(self, inputs: Any) -> Any:
        y = same_depthwise(inputs, ops.convert_to_tensor(self.kernel))
        y = y if self.bias is None else ops.add(y, self.bias)
        return y if self.activation is None else self.activation(y)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["padding"], config["data_format"]
        return config


def same_depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    """Depthwise convolution, stride 1, zero padding, of `x` (batch, height, width, channels).

    `kernel`: (rows, columns, channels, multiplier), rows and columns odd.
    """
    met = tuple(_met(size, taps) for size, taps in zip(x.shape[1:3], kernel.shape[:2]))
    return kernels.depthwise(x, kernel[met])


def _met(size: int, taps: int) -> Any:
    """The taps of an odd kernel side that meet a map of this size (None: unknown), as a slice."""
    reach = taps // 2 if size is None else min(taps // 2, size - 1)
    return slice(taps // 2 - reach, taps // 2 + reach + 1)
