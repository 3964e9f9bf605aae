"""Normalisation of feature maps: LayerNorm over the channels, and global response normalisation."""

from numbers import Real
from typing import Any

import keras
from keras import ops

from keras_robust.backend import kernels
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class LayerNorm(keras.layers.Layer):
    """Normalise the last axis to zero mean and unit variance, then scale by `gamma` and shift by `beta`.

    `y = gamma * (x - mean(x)) / sqrt(var(x) + epsilon) + beta`, with the biased variance, as in Ba et al., "Layer
    Normalization", 2016. Mean and variance are computed in float32 (at least) whatever the precision policy.

    Args:
        epsilon: positive number added to the variance.

    Shapes: `(..., channels)` to the same shape.

    Raises:
        ValueError: `epsilon` is not positive, or the last axis of the input has no static size.

    Example:

    >>> y = LayerNorm()(keras.random.normal((2, 8, 8, 96)))
    """

    def __init__(self, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(epsilon, Real) or not epsilon > 0:
            raise ValueError(f"epsilon must be a positive number, received {epsilon!r}")
        self.epsilon = float(epsilon)
        # The weights and the statistics stay in float32 under a 16-bit policy.
        self.autocast = False

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(f"the last axis of the input must have a static size, received input_shape={input_shape}")
        self.gamma = self.add_weight(name="gamma", shape=(channels,), initializer="ones", autocast=False)
        self.beta = self.add_weight(name="beta", shape=(channels,), initializer="zeros", autocast=False)

    def call(self, x: Tensor) -> Any:
        return ops.cast(kernels.layer_norm(x, self.gamma, self.beta, self.epsilon), self.compute_dtype)  # type: ignore[has-type]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}  # type: ignore[has-type]


@keras.saving.register_keras_serializable("keras_robust")
class GlobalResponseNorm(keras.layers.Layer):
    """Scale each channel by its norm over all positions, relative to the mean of the channels' norms.

    `y = x + gamma * x * n / (mean(n) + 1e-6) + beta`, `n` the Euclidean norm of each channel over the map (Woo et al.,
    "ConvNeXt V2", 2023, section 3). At first the identity. Norms are computed in float32 (at least) whatever the
    precision policy.

    Shapes: `(batch, rows, columns, channels)` to the same shape.

    Example:

    >>> y = GlobalResponseNorm()(keras.random.normal((2, 8, 8, 96)))
    """

    def build(self, input_shape: Any) -> None:
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer="zeros")
        self.beta = self.add_weight(name="beta", shape=(input_shape[-1],), initializer="zeros")

    def call(self, x: Tensor) -> Any:
        exact = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
        squares = ops.sum(exact * exact, axis=(1, 2), keepdims=True)
        # A channel that is zero everywhere has norm 0 and, as in PyTorch, gradient 0; that of the root is infinite.
        positive = squares > 0
        norms = ops.where(positive, ops.sqrt(ops.where(positive, squares, 1.0)), 0.0)
        relative = norms / (ops.mean(norms, axis=-1, keepdims=True) + 1e-6)
        return x + self.gamma * (x * ops.cast(relative, x.dtype)) + self.beta

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape
