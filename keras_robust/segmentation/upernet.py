"""UPerNet: a decoder of feature pyramids into classes of pixels (Xiao et al., "Unified Perceptual Parsing", 2018)."""

from dataclasses import dataclass

import keras

from keras_robust.layers import LayerNorm, PaddedConv2D
from keras_robust.layers.initializers import Normal
from keras_robust.layers.resnet import batch_norm
from keras_robust.segmentation.resizing import GridAverage, ResizeLike
from keras_robust.types import Tensor

STRIDES = (4, 8, 16, 32)
POOLING_SCALES = (1, 2, 3, 6)
LEVEL_NORM = "level_norm_{}"
AUXILIARY_LEVEL = 2  # of those from 0 to 3


@dataclass(frozen=True)
class UPerNet:
    """A row of the table of segmentation models: a backbone, and the widths of the heads on it.

    Croce, Singh and Hein, "Towards Reliable Evaluation and Fast Training of Robust Semantic Segmentation Models", 2024.

    Attributes:
        backbone: name of an architecture of `kr.models.names()` with maps at the strides 4, 8, 16 and 32.
        channels: of all maps inside the head.
        auxiliary_channels: of the auxiliary head.
    """

    backbone: str
    channels: int = 512
    auxiliary_channels: int = 256

    def build(self, pyramid: list[Tensor], images: Tensor, num_classes: int) -> Tensor:
        """Symbolic logits, float32 (batch, height, width, num_classes), of the size of `images`.

        Args:
            pyramid: maps of the backbone, from the finest to the coarsest.
        """
        levels = [LayerNorm(name=LEVEL_NORM.format(i))(level) for i, level in enumerate(pyramid)]
        laterals = [self._conv(level, 1, f"lateral_{i}") for i, level in enumerate(levels[:-1])]
        laterals.append(self._pyramid_pooling(levels[-1]))
        for i in reversed(range(len(laterals) - 1)):
            laterals[i] = laterals[i] + _resized(laterals[i + 1], laterals[i], f"top_down_{i}")
        maps = [self._conv(lateral, 3, f"fpn_{i}") for i, lateral in enumerate(laterals[:-1])]
        maps = [maps[0], *(_resized(x, maps[0], f"fpn_{i}_resize") for i, x in enumerate([*maps[1:], laterals[-1]], 1))]
        x = self._conv(keras.layers.Concatenate(name="fpn_concat")(maps), 3, "fpn_bottleneck")
        return _classified(x, images, num_classes, "classifier")

    def build_auxiliary(self, level: Tensor, images: Tensor, num_classes: int) -> Tensor:
        """Symbolic logits, as of `build`, of a fully convolutional head on the third map behind its norm."""
        x = _conv_norm_relu(level, self.auxiliary_channels, 3, "auxiliary")
        return _classified(x, images, num_classes, "auxiliary_classifier")

    def _pyramid_pooling(self, x: Tensor) -> Tensor:
        """The coarsest map beside its averages over coarser and coarser grids (Zhao et al. 2017)."""
        parts = [x]
        for i, cells in enumerate(POOLING_SCALES):
            pooled = self._conv(GridAverage(cells, name=f"pooling_{i}_average")(x), 1, f"pooling_{i}")
            parts.append(_resized(pooled, x, f"pooling_{i}_resize"))
        return self._conv(keras.layers.Concatenate(name="pooling_concat")(parts), 3, "bottleneck")

    def _conv(self, x: Tensor, size: int, name: str) -> Tensor:
        return _conv_norm_relu(x, self.channels, size, name)


def _conv_norm_relu(x: Tensor, channels: int, size: int, name: str) -> Tensor:
    conv = PaddedConv2D(
        channels, size, padding=size // 2, use_bias=False, kernel_initializer=Normal(), name=f"{name}_conv"
    )
    x = conv(x)
    x = batch_norm(name=f"{name}_norm")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _resized(x: Tensor, like: Tensor, name: str) -> Tensor:
    return ResizeLike(name=name)((x, like))


def _classified(x: Tensor, images: Tensor, num_classes: int, name: str) -> Tensor:
    x = PaddedConv2D(num_classes, 1, kernel_initializer=Normal(), dtype="float32", name=name)(x)
    return ResizeLike(dtype="float32", name=f"{name}_resize")((x, images))
