"""Outputs of exported models: what every format answers."""

import tensorflow as tf

from keras_robust.types import Tensor


def answers(logits: Tensor) -> dict[str, Tensor]:
    """Probabilities, the most probable class, and the five most probable classes (all of them, if fewer)."""
    probabilities = tf.nn.softmax(logits)
    best = tf.math.top_k(probabilities, min(5, logits.shape[-1]))
    return {
        "probabilities": probabilities,
        "classes": best.indices[:, 0],
        "top5_classes": best.indices,
        "top5_probabilities": best.values,
    }
