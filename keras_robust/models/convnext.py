"""ConvNeXt (Liu et al., "A ConvNet for the 2020s", 2022), in stages and isotropic, and V2 (Woo et al., 2023)."""

from dataclasses import dataclass
from typing import Any

from keras_robust.layers import ConvNeXtBlock, ConvNeXtDownsample, ConvStem, PatchStem
from keras_robust.models.architecture import Architecture, drop_path_rates, norm_and_classify, patches, pool
from keras_robust.types import Tensor


@dataclass(frozen=True)
class ConvNeXt(Architecture):
    """Four stages at strides 4, 8, 16 and 32.

    Attributes:
        depths: blocks per stage.
        dims: channels per stage.
        conv_stem: channels of the ConvStem's convolutions; None for the PatchStem.
        mean_sparse: see `keras_robust.layers.ConvNeXtBlock`.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    conv_stem: tuple[int, ...] | None = None
    mean_sparse: bool = False

    layer_scale_init = 1e-6

    scales_decay = True

    response_norm = False

    @property
    def feature_layers(self) -> Any:
        return {4 * 2**i: f"stages_{i}_blocks_{depth - 1}" for i, depth in enumerate(self.depths)}

    def build(self, x: Tensor, options: Any) -> Any:
        if self.conv_stem is None:
            x = PatchStem(self.dims[0], stride=4, norm_epsilon=1e-6, name="stem")(x)
        else:
            x = ConvStem(self.conv_stem, stride=4, name="stem")(x)
        rates = iter(drop_path_rates(options.drop_path_rate, sum(self.depths)))
        for i, (depth, dim) in enumerate(zip(self.depths, self.dims)):
            if i > 0:
                x = ConvNeXtDownsample(dim, name=f"stages_{i}_downsample")(x)
            for j in range(depth):
                name = f"stages_{i}_blocks_{j}"
                kinds = (self.response_norm, self.mean_sparse)
                x = ConvNeXtBlock(options.layer_scale_init, next(rates), *kinds, name=name)(x)
        return norm_and_classify(pool(x), options.num_classes)


@dataclass(frozen=True)
class ConvNeXtV2(ConvNeXt):
    """ConvNeXt with global response normalisation in the blocks' MLPs and without LayerScale."""

    layer_scale_init = None  # type: ignore[assignment]

    response_norm = True


@dataclass(frozen=True)
class IsotropicConvNeXt(Architecture):
    """ConvNeXt blocks without LayerScale at stride 16 throughout.

    Attributes:
        depth: number of blocks.
        dim: channels.
        conv_stem: channels of the ConvStem's 3x3 convolutions; None for the PatchStem.
    """

    depth: int
    dim: int
    conv_stem: tuple[int, ...] | None = None

    min_size = 16

    scales_decay = True

    @property
    def feature_layers(self) -> Any:
        return {16: f"blocks_{self.depth - 1}"}

    def build(self, x: Tensor, options: Any) -> Any:
        x = patches(x, self.dim, self.conv_stem)
        for j, rate in enumerate(drop_path_rates(options.drop_path_rate, self.depth)):
            x = ConvNeXtBlock(None, rate, name=f"blocks_{j}")(x)
        return norm_and_classify(pool(x), options.num_classes)
