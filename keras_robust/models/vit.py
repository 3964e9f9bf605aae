"""Vision transformers: DeiT / ViT-S and -B (Touvron et al., 2021), ViT-M of DeiT III (Touvron et al., 2022)."""

from dataclasses import dataclass

import numpy as np

from keras_robust.layers import ClassToken, ConvStem, PatchStem, PositionEmbedding, TransformerBlock
from keras_robust.models.heads import class_token_head


@dataclass(frozen=True)
class ViT:
    """Patches of 16 pixels, a class token, pre-norm transformer blocks.

    Attributes:
        dim: channels.
        num_heads: attention heads.
        depth: number of blocks.
        conv_stem: channels of the ConvStem's 3x3 convolutions; None for the PatchStem.
        layer_scale_init: initial value of the blocks' LayerScale; None for blocks without it.
        class_position: whether the class token has a position embedding of its own.
    """

    dim: int
    num_heads: int
    depth: int = 12
    conv_stem: tuple[int, ...] | None = None
    layer_scale_init: float | None = None
    class_position: bool = True

    min_size = 16
    multiple_of = 16

    def build(self, x, num_classes, input_size, drop_path_rate, layer_scale_init):
        """Logits of the images `x` (symbolic tensors both)."""
        if self.conv_stem is None:
            x = PatchStem(self.dim, stride=16, name="stem")(x)
        else:
            x = ConvStem(self.conv_stem, stride=16, out_channels=self.dim, name="stem")(x)
        x = PositionEmbedding([size // 16 for size in input_size], name="position")(x)
        x = ClassToken(position=self.class_position, name="class_token")(x)
        for j, rate in enumerate(np.linspace(0, drop_path_rate, self.depth)):
            x = TransformerBlock(self.num_heads, layer_scale_init, rate, name=f"blocks_{j}")(x)
        return class_token_head(x, num_classes)
