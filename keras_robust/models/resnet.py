"""Residual networks: ResNet (He et al., 2016), also wide (Zagoruyko et al., 2016), and RobArch (Peng et al., 2023)."""

from dataclasses import dataclass
from typing import Any

from keras_robust.layers import BasicBlock, Bottleneck, ResNetStem
from keras_robust.models.architecture import Architecture, classify, drop_path_rates, pool
from keras_robust.types import Tensor


@dataclass(frozen=True)
class ResNet(Architecture):
    """Four stages of basic or bottleneck blocks.

    Attributes:
        depths: blocks per stage.
        dims: output channels per stage.
        stem_channels: output channels of the stem.
        stem_pool: whether the stem ends in a maximum of stride 2; without it the first stage has stride 2.
        stem_activation: of the stem.
        activation: of the blocks.
        basic: whether the blocks are of `keras_robust.layers.BasicBlock`, to which the other attributes do not apply.
        width_ratio, groups, first_norm, squeeze_ratio: see `keras_robust.layers.Bottleneck`.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    stem_channels: int = 64
    stem_pool: bool = True
    stem_activation: str = "relu"
    activation: str = "relu"
    basic: bool = False
    width_ratio: float = 0.25
    groups: int = 1
    first_norm: bool = True
    squeeze_ratio: float | None = None

    scales_decay = True

    @property
    def feature_layers(self) -> Any:
        return {4 * 2**i: f"stages_{i}_blocks_{depth - 1}" for i, depth in enumerate(self.depths)}

    def build(self, x: Tensor, options: Any) -> Any:
        x = ResNetStem(self.stem_channels, self.stem_pool, self.stem_activation, name="stem")(x)
        rates = iter(drop_path_rates(options.drop_path_rate, sum(self.depths)))
        for i, (depth, dim) in enumerate(zip(self.depths, self.dims)):
            for j in range(depth):
                stride = 2 if j == 0 and not (i == 0 and self.stem_pool) else 1
                x = self._block(dim, stride, next(rates), f"stages_{i}_blocks_{j}")(x)
        return classify(pool(x), options.num_classes)

    def _block(self, dim: int, stride: int, drop_path_rate: float, name: str) -> Any:
        if self.basic:
            return BasicBlock(dim, stride, self.activation, drop_path_rate, name=name)
        return Bottleneck(
            dim,
            stride,
            self.activation,
            groups=self.groups,
            first_norm=self.first_norm,
            squeeze_ratio=self.squeeze_ratio,
            drop_path_rate=drop_path_rate,
            width_ratio=self.width_ratio,
            name=name,
        )
