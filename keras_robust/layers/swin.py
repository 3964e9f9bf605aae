"""Parts of the Swin transformer (Liu et al., "Swin Transformer", 2021), on feature maps of any size."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust.backend.kernels import softmax
from keras_robust.layers.initializers import Normal
from keras_robust.layers.mlp import Mlp
from keras_robust.layers.normalization import LayerNorm
from keras_robust.layers.regularization import MeanSparse, StochasticDepth
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class WindowAttention(keras.layers.Layer):
    """Multi-head self-attention within square windows, with a learned bias for each relative position.

    A map whose sides are not multiples of the window is filled up with zeros at the right and at the bottom, which
    take part in the attention as in the published code. Along a side not longer than the window nothing shifts, and
    the window shrinks to the map.

    Args:
        num_heads: number of heads; divides the number of channels.
        window_size: side of a window, in positions.
        shifted: whether the windows are shifted by half their side, around the border of the map; positions that meet
            only through the border do not attend to each other.

    Shapes: `(batch, rows, columns, channels)` to the same shape.

    Example:

    >>> y = WindowAttention(num_heads=4)(keras.random.normal((2, 14, 14, 128)))
    """

    def __init__(self, num_heads: Any, window_size: int = 7, shifted: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.window_size = window_size
        self.shifted = shifted

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        common = {"kernel_initializer": Normal(), "dtype": self.dtype_policy}
        self.qkv = keras.layers.Dense(3 * channels, name="qkv", **common)
        self.proj = keras.layers.Dense(channels, name="proj", **common)
        self.qkv.build(input_shape)
        self.proj.build(input_shape)
        self.bias_table = self.add_weight(
            name="bias_table", shape=((2 * self.window_size - 1) ** 2, self.num_heads), initializer=Normal()
        )

    def call(self, x: Tensor) -> Any:
        _, rows, columns, channels = ops.shape(x)
        shifts = [self._shift(n) for n in (rows, columns)]
        x = _roll(x, [-shift for shift in shifts])
        margins = [-n % self.window_size for n in (rows, columns)]
        x = _pad(x, margins)
        padded = ops.shape(x)[1:3]
        mask = self._mask((rows, columns), padded, shifts)
        y = self._merge(self._attend(self._windows(x), mask), padded)
        if not _all_zero(margins):
            y = ops.reshape(y[:, :rows, :columns], (-1, rows, columns, channels))
        return _roll(y, shifts)

    def _shift(self, n: Any) -> Any:
        if not self.shifted:
            return 0
        if isinstance(n, int):
            return 0 if n <= self.window_size else self.window_size // 2
        return ops.where(n <= self.window_size, 0, self.window_size // 2)

    def _windows(self, x: Tensor) -> Any:
        _, rows, columns, channels = ops.shape(x)
        w = self.window_size
        x = ops.reshape(x, (-1, rows // w, w, columns // w, w, channels))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, (rows // w) * (columns // w), w * w, channels))

    def _merge(self, windows: Any, size: Any) -> Any:
        rows, columns = size
        w, channels = self.window_size, windows.shape[-1]
        x = ops.reshape(windows, (-1, rows // w, columns // w, w, w, channels))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, rows, columns, channels))

    def _attend(self, windows: Any, mask: Any) -> Any:
        _, n_windows, area, channels = ops.shape(windows)
        head_dim = channels // self.num_heads
        qkv = ops.reshape(self.qkv(windows), (-1, n_windows, area, 3, self.num_heads, head_dim))
        q, k, v = ops.unstack(qkv, axis=3)
        bias = ops.transpose(ops.take(self.bias_table, _relative_positions(self.window_size), axis=0), (2, 0, 1))
        scores = ops.einsum("bwqhd,bwkhd->bwhqk", q * head_dim**-0.5, k) + bias
        if mask is not None:
            scores = scores + ops.cast(mask, scores.dtype)
        y = ops.einsum("bwhqk,bwkhd->bwqhd", softmax(scores), v)
        return self.proj(ops.reshape(y, (-1, n_windows, area, channels)))

    def _mask(self, size: Any, padded: Any, shifts: Any) -> Any:
        # Along each side, what lies from the border on does not attend to what lies before.
        borders = [self._border(n, p, shift) for n, p, shift in zip(size, padded, shifts)]
        if _all_zero([p - border for p, border in zip(padded, borders)]):
            return None
        row_part, column_part = (ops.cast(ops.arange(p) >= border, "int32") for p, border in zip(padded, borders))
        part = self._windows((2 * row_part[:, None] + column_part)[None, :, :, None])[0]
        return ops.where(part == ops.swapaxes(part, 1, 2), 0.0, -100.0)[:, None]

    def _border(self, n: Any, padded: Any, shift: Any) -> Any:
        if isinstance(n, int):
            return n if n < self.window_size else padded - shift
        return ops.where(n < self.window_size, n, padded - shift)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config = {"num_heads": self.num_heads, "window_size": self.window_size, "shifted": self.shifted}
        return {**super().get_config(), **config}


def _relative_positions(window_size: Any) -> Any:
    """Rows of the bias table, `(window_size**2, window_size**2)`, for each query and key of a window."""
    row, column = np.divmod(np.arange(window_size**2), window_size)
    down, right = (p[:, None] - p + window_size - 1 for p in (row, column))
    return down * (2 * window_size - 1) + right


def _roll(x: Tensor, shifts: Any) -> Any:
    # A shift of 0 is known beforehand or is a tensor; then it is rolled by.
    return x if _all_zero(shifts) else ops.roll(x, shifts, axis=(1, 2))


def _pad(x: Tensor, margins: Any) -> Any:
    return x if _all_zero(margins) else ops.pad(x, ((0, 0), (0, margins[0]), (0, margins[1]), (0, 0)))


def _all_zero(values: Any) -> Any:
    return all(isinstance(value, int) and value == 0 for value in values)


@keras.saving.register_keras_serializable("keras_robust")
class SwinBlock(keras.layers.Layer):
    """Pre-norm block: `x + window_attention(norm(x))`, then `x + mlp(norm(x))`.

    Args:
        num_heads, window_size, shifted: see `WindowAttention`.
        drop_path_rate: probability, in [0, 1), that a sample skips a branch in training.
        norm_epsilon: of LayerNorm.
        mean_sparse: whether a `MeanSparse` follows each of the two sums and each layer of the MLP.

    Shapes: `(batch, rows, columns, channels)` to the same shape.

    Example:

    >>> y = SwinBlock(num_heads=4, shifted=True)(keras.random.normal((2, 14, 14, 128)))
    """

    def __init__(
        self,
        num_heads: Any,
        window_size: int = 7,
        shifted: bool = False,
        drop_path_rate: float = 0.0,
        norm_epsilon: float = 1e-5,
        mean_sparse: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.window_size = window_size
        self.shifted = shifted
        self.drop_path_rate = drop_path_rate
        self.norm_epsilon = norm_epsilon
        common = {"dtype": self.dtype_policy}
        self.norm1 = LayerNorm(norm_epsilon, name="norm1", **common)
        self.attn = WindowAttention(num_heads, window_size, shifted, name="attn", **common)
        self.norm2 = LayerNorm(norm_epsilon, name="norm2", **common)
        self.mlp = Mlp(4, mean_sparse=mean_sparse, name="mlp", **common)
        self.drop = StochasticDepth(drop_path_rate, name="drop", **common)
        self.sparse1 = self.sparse2 = self.sparse3 = None
        if mean_sparse:
            self.sparse1, self.sparse2, self.sparse3 = (MeanSparse(name=f"sparse{i}", **common) for i in (1, 2, 3))

    def build(self, input_shape: Any) -> None:
        for layer in (self.norm1, self.attn, self.norm2, self.mlp, self.sparse1, self.sparse2, self.sparse3):
            if layer is not None:
                layer.build(input_shape)

    def call(self, x: Tensor, training: bool = False) -> Any:
        x = x + self.drop(self.attn(self.norm1(x)), training=training)
        if self.sparse1 is not None:
            x = self.sparse1(x)
        branch = self.mlp(self.norm2(x))
        if self.sparse2 is not None:
            branch = self.sparse2(branch)
        x = x + self.drop(branch, training=training)
        return x if self.sparse3 is None else self.sparse3(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config = {
            "num_heads": self.num_heads,
            "window_size": self.window_size,
            "shifted": self.shifted,
            "drop_path_rate": self.drop_path_rate,
            "norm_epsilon": self.norm_epsilon,
            "mean_sparse": self.sparse1 is not None,
        }
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("keras_robust")
class PatchMerging(keras.layers.Layer):
    """Join the vectors of each 2x2 positions, LayerNorm, and project them to `channels` without bias.

    A last odd row or column is completed with zeros.

    Args:
        channels: output channels.
        norm_epsilon: of LayerNorm.

    Shapes: `(batch, rows, columns, c)` to `(batch, ceil(rows / 2), ceil(columns / 2), channels)`.

    Example:

    >>> y = PatchMerging(256)(keras.random.normal((2, 14, 14, 128)))
    """

    def __init__(self, channels: Any, norm_epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.norm_epsilon = norm_epsilon
        common = {"dtype": self.dtype_policy}
        self.norm = LayerNorm(norm_epsilon, name="norm", **common)
        self.proj = keras.layers.Dense(channels, use_bias=False, kernel_initializer=Normal(), name="proj", **common)

    def build(self, input_shape: Any) -> None:
        joined = (*self.compute_output_shape(input_shape)[:3], 4 * input_shape[-1])
        self.norm.build(joined)
        self.proj.build(joined)

    def call(self, x: Tensor) -> Any:
        x = _pad(x, [-n % 2 for n in ops.shape(x)[1:3]])
        _, rows, columns, channels = ops.shape(x)
        x = ops.reshape(x, (-1, rows // 2, 2, columns // 2, 2, channels))
        # Within the four the row changes first.
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 4, 2, 5)), (-1, rows // 2, columns // 2, 4 * channels))
        return self.proj(self.norm(x))

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, *sizes, _ = input_shape
        return (batch, *(n if n is None else -(-n // 2) for n in sizes), self.channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels, "norm_epsilon": self.norm_epsilon}
