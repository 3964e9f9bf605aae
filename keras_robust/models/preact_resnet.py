"""Pre-activation residual networks for small images, as robust models for CIFAR have them.

He et al., "Identity Mappings in Deep Residual Networks", 2016; Zagoruyko and Komodakis, "Wide Residual Networks", 2016.
"""

from dataclasses import dataclass
from typing import Any

import keras

from keras_robust.layers import PaddedConv2D, PreActBlock
from keras_robust.layers.initializers import FanOutNormal
from keras_robust.layers.resnet import batch_norm
from keras_robust.models.architecture import Architecture, classify, drop_path_rates, pool
from keras_robust.types import Tensor


@dataclass(frozen=True)
class PreActResNet(Architecture):
    """Stages of pre-activation blocks at strides 1, 2, 4, ...

    Attributes:
        depths: blocks per stage.
        dims: output channels per stage.
        stem_channels: output channels of the stem, a 3x3 convolution.
        activation, same_padding, shortcut_size, shortcut_activated: see `keras_robust.layers.PreActBlock`.
        final_norm: whether batch norm and an activation follow the last stage.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    stem_channels: int
    activation: str = "relu"
    same_padding: bool = False
    shortcut_size: int = 1
    shortcut_activated: bool = True
    final_norm: bool = True

    scales_decay = True

    @property
    def min_size(self) -> int:
        return 2 ** (len(self.depths) - 1)

    @property
    def feature_layers(self) -> Any:
        return {2**i: self._block_name(i, depth - 1) for i, depth in enumerate(self.depths)}

    def build(self, x: Tensor, options: Any) -> Any:
        x = PaddedConv2D(
            self.stem_channels, 3, padding=1, use_bias=False, kernel_initializer=FanOutNormal(), name="stem"
        )(x)
        rates = iter(drop_path_rates(options.drop_path_rate, sum(self.depths)))
        for i, (depth, dim) in enumerate(zip(self.depths, self.dims)):
            for j in range(depth):
                x = PreActBlock(
                    dim,
                    stride=2 if j == 0 and i > 0 else 1,
                    activation=self.activation,
                    same_padding=self.same_padding,
                    shortcut_size=self.shortcut_size,
                    shortcut_activated=self.shortcut_activated,
                    drop_path_rate=next(rates),
                    name=self._block_name(i, j),
                )(x)
        if self.final_norm:
            x = keras.layers.Activation(self.activation, name="activation")(batch_norm(name="norm")(x))
        return classify(pool(x), options.num_classes)

    def _block_name(self, stage: int, block: int) -> str:
        # Weights fit alike with either padding: with other names those of one are no weights of the other.
        return f"{'groups' if self.same_padding else 'stages'}_{stage}_blocks_{block}"
