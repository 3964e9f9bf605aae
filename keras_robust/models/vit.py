"""Vision transformers.

DeiT / ViT-S and -B (Touvron et al., 2021), ViT-M of DeiT III (Touvron et al., 2022) and ViT-L, -H and -g of AdvXL
(Wang et al., "Revisiting Adversarial Training at Scale", 2024).
"""

from dataclasses import dataclass
from typing import Any

import keras

from keras_robust.layers import ClassToken, PatchMap, PositionEmbedding, TransformerBlock
from keras_robust.models.architecture import Architecture, drop_path_rates, norm_and_classify, patches
from keras_robust.types import Tensor


@dataclass(frozen=True)
class ViT(Architecture):
    """Patches, a class token, pre-norm transformer blocks.

    Attributes:
        dim: channels.
        num_heads: attention heads.
        depth: number of blocks.
        conv_stem: channels of the ConvStem's 3x3 convolutions; None for the PatchStem.
        layer_scale_init: published initial value of the blocks' LayerScale; None for blocks without it.
        class_position: whether the class token has a position embedding of its own.
        patch_size: side of a patch, in pixels.
        mlp_ratio: width of the MLPs' hidden layers over the number of channels.
        average: whether the mean of the patches' tokens is classified, normalised after it, not the class token.
    """

    dim: int
    num_heads: int
    depth: int = 12
    conv_stem: tuple[int, ...] | None = None
    layer_scale_init: float | None = None
    class_position: bool = True
    patch_size: int = 16
    mlp_ratio: float = 4
    average: bool = False

    @property
    def min_size(self) -> int:
        return self.patch_size

    @property
    def multiple_of(self) -> int:
        return self.patch_size

    @property
    def feature_layers(self) -> Any:
        return {self.patch_size: f"blocks_{self.depth - 1}"}

    def feature_maps(self, model: Any) -> Any:
        ((stride, name),) = self.feature_layers.items()
        return {stride: PatchMap(name="patch_map")(model.get_layer(name).output, model.get_layer("position").output)}

    def build(self, x: Tensor, options: Any) -> Any:
        x = patches(x, self.dim, self.conv_stem, self.patch_size)
        x = PositionEmbedding([size // self.patch_size for size in options.input_size], name="position")(x)
        x = ClassToken(position=self.class_position, name="class_token")(x)
        for j, rate in enumerate(drop_path_rates(options.drop_path_rate, self.depth)):
            x = TransformerBlock(self.num_heads, options.layer_scale_init, rate, self.mlp_ratio, name=f"blocks_{j}")(x)
        if self.average:
            return norm_and_classify(keras.ops.mean(x[:, 1:], axis=1), options.num_classes, norm_name="fc_norm")
        return norm_and_classify(x[:, 0], options.num_classes)
