"""ConvNeXt's block and the step between its stages (Liu et al., "A ConvNet for the 2020s", 2022)."""

from typing import Any

import keras

from keras_robust.layers.convolution import PaddedConv2D
from keras_robust.layers.depthwise import SameDepthwiseConv2D
from keras_robust.layers.initializers import Normal
from keras_robust.layers.mlp import Mlp
from keras_robust.layers.normalization import LayerNorm
from keras_robust.layers.regularization import LayerScale, MeanSparse, StochasticDepth
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class ConvNeXtBlock(keras.layers.Layer):
    """`x + drop(gamma * mlp(norm(depthwise 7x7(x))))`.

    Args:
        layer_scale_init: initial value of `gamma`; None for a block without it (isotropic ConvNeXt).
        drop_path_rate: probability, in [0, 1), that a sample skips the branch in training.
        response_norm: whether the MLP has a `GlobalResponseNorm` (ConvNeXt V2).
        mean_sparse: whether the MLP has a `MeanSparse` and another one ends the branch.

    Shapes: `(batch, height, width, channels)` to the same shape.

    Example:

    >>> y = ConvNeXtBlock(layer_scale_init=1e-6)(keras.random.normal((2, 14, 14, 96)))
    """

    def __init__(
        self,
        layer_scale_init: float | None = 1e-6,
        drop_path_rate: float = 0.0,
        response_norm: bool = False,
        mean_sparse: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layer_scale_init = layer_scale_init
        self.drop_path_rate = drop_path_rate
        common = {"dtype": self.dtype_policy}
        self.conv_dw = SameDepthwiseConv2D(7, depthwise_initializer=Normal(), name="conv_dw", **common)
        self.norm = LayerNorm(name="norm", **common)
        self.mlp = Mlp(4, response_norm, mean_sparse, name="mlp", **common)
        self.scale = None if layer_scale_init is None else LayerScale(layer_scale_init, name="scale", **common)
        self.drop = StochasticDepth(drop_path_rate, name="drop", **common)
        self.sparse = MeanSparse(name="sparse", **common) if mean_sparse else None

    def build(self, input_shape: Any) -> None:
        for layer in (self.conv_dw, self.norm, self.mlp, self.scale, self.sparse):
            if layer is not None:
                layer.build(input_shape)

    def call(self, x: Tensor, training: bool = False) -> Any:
        branch = self.mlp(self.norm(self.conv_dw(x)))
        if self.scale is not None:
            branch = self.scale(branch)
        branch = self.drop(branch, training=training)
        return x + (branch if self.sparse is None else self.sparse(branch))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config = {
            "layer_scale_init": self.layer_scale_init,
            "drop_path_rate": self.drop_path_rate,
            "response_norm": self.mlp.grn is not None,
            "mean_sparse": self.sparse is not None,
        }
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("keras_robust")
class ConvNeXtDownsample(keras.layers.Layer):
    """LayerNorm, then a 2x2 convolution of stride 2.

    Args:
        channels: output channels.

    Shapes: `(batch, height, width, c)` to `(batch, height // 2, width // 2, channels)`.

    Example:

    >>> y = ConvNeXtDownsample(192)(keras.random.normal((2, 56, 56, 96)))
    """

    def __init__(self, channels: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.norm = LayerNorm(dtype=self.dtype_policy, name="norm")
        self.conv = PaddedConv2D(
            channels, 2, strides=2, kernel_initializer=Normal(), dtype=self.dtype_policy, name="conv"
        )

    def build(self, input_shape: Any) -> None:
        self.norm.build(input_shape)
        self.conv.build(input_shape)

    def call(self, x: Tensor) -> Any:
        return self.conv(self.norm(x))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.conv.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels}
