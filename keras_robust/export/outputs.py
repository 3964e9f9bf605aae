"""Outputs of exported models: what every format answers."""

import tensorflow as tf

from keras_robust.types import Tensor


def answers(logits: Tensor) -> dict[str, Tensor]:
    """Probabilities, the most probable class, and the five most probable classes (all of them, if fewer).

    Of logits of pixels, (batch, height, width, classes): the most probable class of each, and its probability.
    """
    probabilities = tf.nn.softmax(logits)
    if len(logits.shape) == 4:
        classes = tf.argmax(logits, -1, output_type=tf.int32)
        return {"classes": classes, "confidences": tf.reduce_max(probabilities, -1)}
    best = tf.math.top_k(probabilities, min(5, logits.shape[-1]))
    return {
        "probabilities": probabilities,
        "classes": best.indices[:, 0],
        "top5_classes": best.indices,
        "top5_probabilities": best.values,
    }
