"""Convolution with explicit padding."""

from typing import Any

import keras

from keras_robust.backend import kernels
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class PaddedConv2D(keras.layers.Conv2D):
    """2D convolution that pads `padding` zeros on each of the four sides, as PyTorch does.

    Keras' "same" is another rule when the stride is 2: it pads even sizes on the right and at the bottom only, so
    that imported weights would see a shifted image.

    Args:
        filters: output channels.
        kernel_size: side of the kernel, or (height, width).
        strides: step, or (vertical, horizontal).
        padding: number of zeros on each side, an int.
        **kwargs: as for `keras.layers.Conv2D`.

    Shapes: `(batch, height, width, c)` to `(batch, (height + 2 padding - kernel) // stride + 1, likewise, filters)`.

    Example:

    >>> y = PaddedConv2D(64, 7, strides=2, padding=3, use_bias=False)(keras.random.uniform((2, 64, 64, 3)))
    """

    def __init__(self, filters: Any, kernel_size: Any, strides: int = 1, padding: int = 0, **kwargs: Any) -> None:
        super().__init__(filters, kernel_size, strides, data_format="channels_last", **kwargs)
        self.margin = padding

    def convolution_op(self, inputs: Tensor, kernel: Any) -> Any:
        return kernels.convolution(inputs, kernel, self.strides, self.margin, self.dilation_rate)

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, *sizes, channels = input_shape
        sizes = [size if size is None else size + 2 * self.margin for size in sizes]
        return super().compute_output_shape((batch, *sizes, channels))

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "padding": self.margin}
        del config["data_format"]
        return config
