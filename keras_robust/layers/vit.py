"""Parts of the vision transformer (Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021)."""

from typing import Any

import keras
from keras import ops

from keras_robust.layers.attention import Attention
from keras_robust.layers.initializers import Normal
from keras_robust.layers.mlp import Mlp
from keras_robust.layers.normalization import LayerNorm
from keras_robust.layers.regularization import LayerScale, StochasticDepth
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class PositionEmbedding(keras.layers.Layer):
    """Add a learned vector to each patch; on another grid than the native one, the bicubically resized vectors.

    Resized as the published models are evaluated: cubic convolution with a = -0.75, pixel centres at halves
    (align_corners false), no antialiasing, coordinates from the scale factor (n + 0.1) / g for n patches where g are
    native. On the native grid the vectors are added untouched. The grid may be unknown until run time.

    Args:
        grid: native grid, (rows, columns) of patches.

    Shapes: `(batch, rows, columns, channels)` to the same shape, for any number of rows and columns.

    Example:

    >>> x = PositionEmbedding(grid=(14, 14))(keras.random.normal((2, 14, 14, 384)))
    """

    def __init__(self, grid: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.grid = tuple(grid)

    def build(self, input_shape: Any) -> None:
        # Not autocast: resized in float32 under 16-bit policies too.
        self.embedding = self.add_weight(
            name="embedding", shape=(*self.grid, input_shape[-1]), initializer=Normal(), autocast=False
        )

    def call(self, patches: Any) -> Any:
        if tuple(patches.shape[1:3]) == self.grid:
            embedding = self.embedding
        else:
            embedding = self._resized(*ops.shape(patches)[1:3])
        return patches + ops.cast(embedding, self.compute_dtype)

    def _resized(self, rows: Any, columns: Any) -> Any:
        # `rows` and `columns` are tensors where the size is known at run time only.
        native = ops.logical_and(ops.equal(rows, self.grid[0]), ops.equal(columns, self.grid[1]))
        by_row, by_column = (
            ops.where(native, ops.cast(ops.arange(n)[:, None] == ops.arange(g), "float32"), bicubic_weights(g, n))
            for n, g in zip((rows, columns), self.grid)
        )
        # Multiply and sum, not matmul: accelerators round the operands of a matmul to fewer bits.
        x = ops.sum(by_row[:, :, None, None] * self.embedding, axis=1)
        return ops.sum(by_column[:, :, None] * x[:, None], axis=2)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "grid": self.grid}


def bicubic_weights(g: Any, n: Any) -> Any:
    """Matrix `(n, g)`, float32, that resizes `g` samples to `n` by cubic convolution (see `PositionEmbedding`).

    Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = -0.75; samples beyond the
    borders repeat the outermost ones.
    """
    a = -0.75
    centre = (ops.cast(ops.arange(n), "float32") + 0.5) * (g / (ops.cast(n, "float32") + 0.1)) - 0.5
    taps = ops.floor(centre)[:, None] + ops.convert_to_tensor([-1.0, 0.0, 1.0, 2.0])
    t = ops.abs(centre[:, None] - taps)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    weights = ops.where(t <= 1, near, far)
    sources = ops.cast(ops.clip(taps, 0, g - 1), "int32")
    return ops.sum(weights[:, :, None] * ops.cast(sources[:, :, None] == ops.arange(g), "float32"), axis=1)


@keras.saving.register_keras_serializable("keras_robust")
class ClassToken(keras.layers.Layer):
    """Turn a grid of patches into a sequence with a learned class token in front.

    Args:
        position: whether the class token has a position embedding of its own, added to it (ViT-S and -B; not ViT-M).

    Shapes: `(batch, rows, columns, channels)` to `(batch, 1 + rows * columns, channels)`.

    Example:

    >>> tokens = ClassToken()(keras.random.normal((2, 14, 14, 384)))
    """

    def __init__(self, position: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.position = position

    def build(self, input_shape: Any) -> None:
        shape = (1, 1, input_shape[-1])
        self.token = self.add_weight(name="token", shape=shape, initializer=Normal(1e-6))
        if self.position:
            self.embedding = self.add_weight(name="embedding", shape=shape, initializer=Normal())

    def call(self, patches: Any) -> Any:
        batch, rows, columns, channels = ops.shape(patches)
        token = self.token + self.embedding if self.position else self.token
        token = ops.broadcast_to(token, (batch, 1, channels))
        return ops.concatenate([token, ops.reshape(patches, (-1, rows * columns, channels))], axis=1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, rows, columns, channels = input_shape
        return batch, None if None in (rows, columns) else 1 + rows * columns, channels

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "position": self.position}


@keras.saving.register_keras_serializable("keras_robust")
class PatchMap(keras.layers.Layer):
    """Undo `ClassToken`: drop the class token and lay the other tokens out as the map that they came from.

    Shapes: tokens `(batch, 1 + rows * columns, channels)` and a map `(batch, rows, columns, c)`, of which only the size
    counts, to `(batch, rows, columns, channels)`.

    Example:

    >>> patches = keras.random.normal((2, 14, 14, 384))
    >>> feature_map = PatchMap()(ClassToken()(patches), patches)
    """

    def call(self, tokens: Any, patches: Any) -> Any:
        rows, columns = ops.shape(patches)[1:3]
        return ops.reshape(tokens[:, 1:], (-1, rows, columns, tokens.shape[-1]))

    def compute_output_shape(self, tokens_shape: Any, patches_shape: Any) -> Any:
        return (*patches_shape[:3], tokens_shape[-1])


@keras.saving.register_keras_serializable("keras_robust")
class TransformerBlock(keras.layers.Layer):
    """Pre-norm block: `x + scale(attention(norm(x)))`, then `x + scale(mlp(norm(x)))`.

    Args:
        num_heads: number of attention heads; divides the number of channels.
        layer_scale_init: initial value of the per-channel scales; None for a block without them.
        drop_path_rate: probability, in [0, 1), that a sample skips a branch in training.
        mlp_ratio: width of the MLP's hidden layer over the number of channels.

    Shapes: `(batch, tokens, channels)` to the same shape.

    Example:

    >>> y = TransformerBlock(num_heads=6)(keras.random.normal((2, 197, 384)))
    """

    def __init__(
        self,
        num_heads: Any,
        layer_scale_init: Any = None,
        drop_path_rate: float = 0.0,
        mlp_ratio: float = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.layer_scale_init = layer_scale_init
        self.drop_path_rate = drop_path_rate
        common = {"dtype": self.dtype_policy}
        self.norm1 = LayerNorm(name="norm1", **common)
        self.attn = Attention(num_heads, name="attn", **common)
        self.norm2 = LayerNorm(name="norm2", **common)
        self.mlp = Mlp(mlp_ratio, name="mlp", **common)
        self.scale1 = self.scale2 = None
        if layer_scale_init is not None:
            self.scale1 = LayerScale(layer_scale_init, name="scale1", **common)
            self.scale2 = LayerScale(layer_scale_init, name="scale2", **common)
        self.drop1 = StochasticDepth(drop_path_rate, name="drop1", **common)
        self.drop2 = StochasticDepth(drop_path_rate, name="drop2", **common)

    def build(self, input_shape: Any) -> None:
        for layer in (self.norm1, self.attn, self.norm2, self.mlp, self.scale1, self.scale2):
            if layer is not None:
                layer.build(input_shape)

    def call(self, x: Tensor, training: bool = False) -> Any:
        branch = self.attn(self.norm1(x))
        if self.scale1 is not None:
            branch = self.scale1(branch)
        x = x + self.drop1(branch, training=training)
        branch = self.mlp(self.norm2(x))
        if self.scale2 is not None:
            branch = self.scale2(branch)
        return x + self.drop2(branch, training=training)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config = {
            "num_heads": self.num_heads,
            "layer_scale_init": self.layer_scale_init,
            "drop_path_rate": self.drop_path_rate,
            "mlp_ratio": self.mlp.ratio,
        }
        return {**super().get_config(), **config}
