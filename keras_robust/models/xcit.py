"""XCiT (El-Nouby et al., "XCiT: Cross-Covariance Image Transformers", 2021)."""

from dataclasses import dataclass
from typing import Any

from keras_robust.layers import ClassAttentionBlock, ClassToken, FourierPosition, XCiTBlock, XCiTStem
from keras_robust.models.architecture import Architecture, drop_path_rates, norm_and_classify
from keras_robust.types import Tensor


@dataclass(frozen=True)
class XCiT(Architecture):
    """Blocks of cross-covariance attention at stride 16, then class attention.

    Attributes:
        dim: channels.
        num_heads: attention heads.
        depth: number of cross-covariance blocks.
        class_depth: number of class-attention blocks.
    """

    dim: int
    num_heads: int
    depth: int = 12
    class_depth: int = 2

    min_size = 16
    layer_scale_init = 1.0

    @property
    def feature_layers(self) -> Any:
        return {16: f"blocks_{self.depth - 1}"}

    def build(self, x: Tensor, options: Any) -> Any:
        x = XCiTStem(self.dim, name="stem")(x)
        x = FourierPosition(name="position")(x)
        for j, rate in enumerate(drop_path_rates(options.drop_path_rate, self.depth)):
            x = XCiTBlock(self.num_heads, options.layer_scale_init, rate, name=f"blocks_{j}")(x)
        x = ClassToken(name="class_token")(x)
        for j in range(self.class_depth):
            x = ClassAttentionBlock(self.num_heads, options.layer_scale_init, name=f"class_blocks_{j}")(x)
        return norm_and_classify(x[:, 0], options.num_classes)
