"""Vision transformers: DeiT / ViT-S and -B (Touvron et al., 2021), ViT-M of DeiT III (Touvron et al., 2022)."""

from dataclasses import dataclass
from typing import Any

from keras_robust.layers import ClassToken, PatchMap, PositionEmbedding, TransformerBlock
from keras_robust.models.architecture import Architecture, drop_path_rates, norm_and_classify, patches_of_16
from keras_robust.types import Tensor


@dataclass(frozen=True)
class ViT(Architecture):
    """Patches of 16 pixels, a class token, pre-norm transformer blocks.

    Attributes:
        dim: channels.
        num_heads: attention heads.
        depth: number of blocks.
        conv_stem: channels of the ConvStem's 3x3 convolutions; None for the PatchStem.
        layer_scale_init: published initial value of the blocks' LayerScale; None for blocks without it.
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

    @property
    def feature_layers(self) -> Any:
        return {16: f"blocks_{self.depth - 1}"}

    def feature_maps(self, model: Any) -> Any:
        tokens, patches = model.get_layer(self.feature_layers[16]).output, model.get_layer("position").output
        return {16: PatchMap(name="patch_map")(tokens, patches)}

    def build(self, x: Tensor, options: Any) -> Any:
        x = patches_of_16(x, self.dim, self.conv_stem)
        x = PositionEmbedding([size // 16 for size in options.input_size], name="position")(x)
        x = ClassToken(position=self.class_position, name="class_token")(x)
        for j, rate in enumerate(drop_path_rates(options.drop_path_rate, self.depth)):
            x = TransformerBlock(self.num_heads, options.layer_scale_init, rate, name=f"blocks_{j}")(x)
        return norm_and_classify(x[:, 0], options.num_classes)
