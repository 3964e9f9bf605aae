"""Mixture of the answers of two classifiers."""

import math
from typing import Any

import keras
from keras import ops

from keras_robust.layers.activations import gelu
from keras_robust.types import Tensor

VARIANCE_EPSILON = 1e-8


@keras.saving.register_keras_serializable("keras_robust")
class NonlinearMixture(keras.layers.Layer):
    """Log-probabilities of a mixture of an accurate and a robust classifier (Bai et al., "MixedNUTS", 2024).

    The accurate one gives its class alone, the robust one a softmax of its transformed logits z:

        z' = (z - mean) / sqrt(variance + 1e-8), of the `top` largest logits; a = gelu(z' + bias)
        log((1 - share) [class is the accurate one's] + share softmax(scale sign(a) |a|^power))

    No gradient passes through the accurate classifier, as none does to speak of in RobustBench's code, whose softmax of
    a million times its normalised logits is flat but at a tie.

    Args:
        share: of the robust classifier, in (0, 1).
        scale, power, bias: of the transformation.
        top: how many of the largest logits mean and variance are of; all of them where there are fewer.

    Shapes: two times `(batch, classes)` to the same shape, float32.

    Raises:
        ValueError: a share outside of (0, 1).

    Example:

    >>> mixture = NonlinearMixture(share=0.9, scale=0.1, power=3.0, bias=-0.3)
    >>> log_probabilities = mixture(keras.random.normal((2, 10)), keras.random.normal((2, 10)))
    """

    withholds_gradients = True

    def __init__(self, share: float, scale: float, power: float, bias: float, top: int = 250, **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})
        if not 0 < share < 1:
            raise ValueError(f"share must lie in (0, 1); received {share!r}.")
        self.share, self.scale, self.power, self.bias, self.top = share, scale, power, bias, top

    def call(self, standard: Tensor, robust: Tensor) -> Any:
        classes = robust.shape[-1]
        largest = robust if classes <= self.top else ops.top_k(robust, self.top)[0]
        count = largest.shape[-1]
        mean = ops.mean(largest, axis=-1, keepdims=True)
        variance = ops.sum(ops.square(largest - mean), axis=-1, keepdims=True) / (count - 1)
        z = gelu((robust - mean) / ops.sqrt(variance + VARIANCE_EPSILON) + self.bias)
        answers = ops.log_softmax(self.scale * ops.sign(z) * ops.power(ops.abs(z), self.power), axis=-1)
        answers = answers + math.log(self.share)
        chosen = ops.one_hot(ops.argmax(standard, axis=-1), classes, dtype="bool")
        return ops.where(chosen, ops.logaddexp(answers, math.log1p(-self.share)), answers)

    def compute_output_shape(self, standard_shape: Any, robust_shape: Any) -> Any:
        return robust_shape

    def get_config(self) -> dict[str, Any]:
        names = ("share", "scale", "power", "bias", "top")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
