"""ConvNeXt (Liu et al., "A ConvNet for the 2020s", 2022), in stages and isotropic."""

from dataclasses import dataclass

import numpy as np

from keras_robust.layers import ConvNeXtBlock, ConvNeXtDownsample, ConvStem, PatchStem
from keras_robust.models.heads import pooled_head


@dataclass(frozen=True)
class ConvNeXt:
    """Four stages at strides 4, 8, 16 and 32.

    Attributes:
        depths: blocks per stage.
        dims: channels per stage.
        conv_stem: channels of the ConvStem's convolutions; None for the PatchStem.
        layer_scale_init: initial value of the blocks' LayerScale, unless `create` is given another.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    conv_stem: tuple[int, ...] | None = None
    layer_scale_init: float | None = 1e-6

    min_size = 32
    multiple_of = 1

    @property
    def feature_layers(self):
        """Stride -> name of the layer whose output is that stage's feature map."""
        return {4 * 2**i: f"stages_{i}_blocks_{depth - 1}" for i, depth in enumerate(self.depths)}

    def build(self, x, num_classes, input_size, drop_path_rate, layer_scale_init):
        """Logits of the images `x` (symbolic tensors both)."""
        if self.conv_stem is None:
            x = PatchStem(self.dims[0], stride=4, norm=True, name="stem")(x)
        else:
            x = ConvStem(self.conv_stem, stride=4, name="stem")(x)
        drop_path_rates = iter(np.linspace(0, drop_path_rate, sum(self.depths)))
        for i, (depth, dim) in enumerate(zip(self.depths, self.dims)):
            if i > 0:
                x = ConvNeXtDownsample(dim, name=f"stages_{i}_downsample")(x)
            for j in range(depth):
                x = ConvNeXtBlock(layer_scale_init, next(drop_path_rates), name=f"stages_{i}_blocks_{j}")(x)
        return pooled_head(x, num_classes)


@dataclass(frozen=True)
class IsotropicConvNeXt:
    """ConvNeXt blocks at stride 16 throughout, without LayerScale.

    Attributes:
        depth: number of blocks.
        dim: channels.
        conv_stem: channels of the ConvStem's 3x3 convolutions; None for the PatchStem.
    """

    depth: int
    dim: int
    conv_stem: tuple[int, ...] | None = None

    layer_scale_init = None
    min_size = 16
    multiple_of = 1

    @property
    def feature_layers(self):
        """Stride -> name of the layer whose output is that feature map."""
        return {16: f"blocks_{self.depth - 1}"}

    def build(self, x, num_classes, input_size, drop_path_rate, layer_scale_init):
        """Logits of the images `x` (symbolic tensors both)."""
        if self.conv_stem is None:
            x = PatchStem(self.dim, stride=16, name="stem")(x)
        else:
            x = ConvStem(self.conv_stem, stride=16, out_channels=self.dim, name="stem")(x)
        for j, rate in enumerate(np.linspace(0, drop_path_rate, self.depth)):
            x = ConvNeXtBlock(layer_scale_init, rate, name=f"blocks_{j}")(x)
        return pooled_head(x, num_classes)
