"""Swin transformer (Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", 2021)."""

from dataclasses import dataclass
from typing import Any

from keras_robust.layers import LayerNorm, PatchMerging, PatchStem, SwinBlock
from keras_robust.models.architecture import Architecture, classify, drop_path_rates, pool
from keras_robust.types import Tensor


@dataclass(frozen=True)
class Swin(Architecture):
    """Four stages at strides 4, 8, 16 and 32, with attention in windows, every other time shifted.

    Exact for images whose sides are multiples of 224 pixels: there all maps are cut into whole windows. At other sizes
    maps are filled up with zeros to whole windows, as in the published code, where a map is larger than a window.

    Attributes:
        dim: channels of the first stage; each next one has twice as many.
        depths: blocks per stage.
        num_heads: attention heads per stage.
        window_size: side of a window, one for all stages or one for each.
        norm_epsilon: of LayerNorm.
        mean_sparse: see `keras_robust.layers.SwinBlock`.
    """

    dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_size: int | tuple[int, ...] = 7
    norm_epsilon: float = 1e-5
    mean_sparse: bool = False

    @property
    def feature_layers(self) -> Any:
        return {4 * 2**i: f"stages_{i}_blocks_{depth - 1}" for i, depth in enumerate(self.depths)}

    def build(self, x: Tensor, options: Any) -> Any:
        x = PatchStem(self.dim, stride=4, norm_epsilon=self.norm_epsilon, name="stem")(x)
        rates = iter(drop_path_rates(options.drop_path_rate, sum(self.depths)))
        sizes = self.window_size if isinstance(self.window_size, tuple) else (self.window_size,) * len(self.depths)
        for i, (depth, heads, window_size) in enumerate(zip(self.depths, self.num_heads, sizes)):
            if i > 0:
                x = PatchMerging(self.dim * 2**i, self.norm_epsilon, name=f"stages_{i}_downsample")(x)
            for j in range(depth):
                name = f"stages_{i}_blocks_{j}"
                x = SwinBlock(
                    heads, window_size, j % 2 == 1, next(rates), self.norm_epsilon, self.mean_sparse, name=name
                )(x)
        x = LayerNorm(self.norm_epsilon, dtype="float32", name="norm")(x)
        return classify(pool(x), options.num_classes)
