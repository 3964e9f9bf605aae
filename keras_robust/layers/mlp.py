"""The two dense layers that mix channels."""

from typing import Any

import keras

from keras_robust.layers.activations import gelu
from keras_robust.layers.initializers import Normal
from keras_robust.layers.normalization import GlobalResponseNorm
from keras_robust.layers.regularization import MeanSparse
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class Mlp(keras.layers.Layer):
    """Dense to `ratio` times the channels, exact GELU, Dense back, at each position.

    Args:
        ratio: width of the hidden layer over the number of channels.
        response_norm: whether a `GlobalResponseNorm` follows the GELU (ConvNeXt V2).
        mean_sparse: whether a `MeanSparse` comes before the GELU.

    Shapes: `(..., channels)` to the same shape.

    Example:

    >>> y = Mlp(ratio=4)(keras.random.normal((2, 7, 7, 96)))
    """

    def __init__(self, ratio: float = 4, response_norm: bool = False, mean_sparse: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ratio = ratio
        self.grn = GlobalResponseNorm(dtype=self.dtype_policy, name="grn") if response_norm else None
        self.sparse = MeanSparse(dtype=self.dtype_policy, name="sparse") if mean_sparse else None

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        hidden = round(self.ratio * channels)
        common = {"dtype": self.dtype_policy}
        self.fc1 = keras.layers.Dense(hidden, kernel_initializer=Normal(), name="fc1", **common)
        self.fc2 = keras.layers.Dense(channels, kernel_initializer=Normal(), name="fc2", **common)
        self.fc1.build(input_shape)
        for layer in (self.sparse, self.grn):
            if layer is not None:
                layer.build((*input_shape[:-1], hidden))
        self.fc2.build((*input_shape[:-1], hidden))

    def call(self, x: Tensor) -> Any:
        x = self.fc1(x)
        x = gelu(x if self.sparse is None else self.sparse(x))
        return self.fc2(x if self.grn is None else self.grn(x))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config = {
            "ratio": self.ratio,
            "response_norm": self.grn is not None,
            "mean_sparse": self.sparse is not None,
        }
        return {**super().get_config(), **config}
