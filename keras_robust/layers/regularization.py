"""Per-channel scale, random drop of residual branches, and sparsification of features."""

from typing import Any

import keras
from keras import ops

from keras_robust import backend, random
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class LayerScale(keras.layers.Layer):
    """Multiply each channel by a learned factor `gamma` (Touvron et al., "Going deeper with Image Transformers", 2021).

    Args:
        init: initial value of every factor.

    Shapes: `(..., channels)` to the same shape.

    Example:

    >>> branch = LayerScale(1e-6)(keras.random.normal((2, 8, 8, 96)))
    """

    def __init__(self, init: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init = float(init)

    def build(self, input_shape: Any) -> None:
        initializer = keras.initializers.Constant(self.init)
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer=initializer)

    def call(self, x: Tensor) -> Any:
        return x * self.gamma

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "init": self.init}


@keras.saving.register_keras_serializable("keras_robust")
class StochasticDepth(keras.layers.Layer):
    """Drop a residual branch at random, one draw per sample (Huang et al., "Deep Networks with Stochastic
    Depth", 2016).

    In training each sample is set to zero with probability `rate` and divided by `1 - rate` otherwise, whatever the
    number of devices. In inference mode, and with `rate=0`, the input passes unchanged and nothing random is drawn.

    Args:
        rate: probability of a drop, in [0, 1).
        seed: optional int.

    Shapes: `(batch, ...)` to the same shape.

    Raises:
        ValueError: `rate` is outside [0, 1).

    Example:

    >>> branch = keras.random.normal((8, 14, 14, 96))
    >>> x = keras.ops.zeros_like(branch) + StochasticDepth(0.1)(branch, training=True)
    """

    def __init__(self, rate: Any, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must lie in [0, 1), received {rate!r}")
        self.rate = float(rate)
        self.seed = seed
        if rate > 0:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, x: Tensor, training: bool = False) -> Any:
        if not training or self.rate == 0:
            return x
        keep = 1 - self.rate
        seed = self.seed_generator.next()
        keys = random.example_keys(seed[0], seed[1], backend.example_index(ops.shape(x)[0]))
        kept = random.uniform(keys, x[(slice(None),) + (slice(1),) * (len(x.shape) - 1)]) < keep
        return x * (ops.cast(kept, x.dtype) / keep)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@keras.saving.register_keras_serializable("keras_robust")
class MeanSparse(keras.layers.Layer):
    """Set features that lie close to their channel's mean to it (Amini et al., "MeanSparse", 2024).

    `mean` where `|x - mean| < threshold * sqrt(variance)`, else `x`. Mean, variance and threshold come with a
    checkpoint and are not trained; at first the layer is the identity, its threshold being 0.

    Where features are set no gradient passes, as in the published nets: AutoAttack finds them more robust than attacks
    do that let it pass (62.1 % against 58.9 % for the published Swin-L on RobustBench's board).

    Shapes: `(..., channels)` to the same shape.

    Example:

    >>> y = MeanSparse()(keras.random.normal((2, 8, 8, 96)))
    """

    withholds_gradients = True  # evaluations warn of layers that say so

    def build(self, input_shape: Any) -> None:
        common = {"initializer": "zeros", "trainable": False}
        self.moving_mean = self.add_weight(name="moving_mean", shape=input_shape[-1:], **common)
        self.moving_variance = self.add_weight(name="moving_variance", shape=input_shape[-1:], **common)
        self.threshold = self.add_weight(name="threshold", shape=(), **common)

    def call(self, x: Tensor) -> Any:
        mean = ops.convert_to_tensor(self.moving_mean)
        radius = self.threshold * ops.sqrt(self.moving_variance)
        return ops.where(ops.abs(x - mean) < radius, mean, x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape
