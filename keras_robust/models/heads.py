"""From features to logits, in float32 whatever the precision policy."""

import keras

from keras_robust.layers import LayerNorm
from keras_robust.layers.initializers import truncated_normal


def pooled_head(x, num_classes):
    """Logits `(batch, num_classes)` of a feature map: global average, LayerNorm, Dense."""
    x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
    return _norm_and_classify(x, num_classes)


def class_token_head(x, num_classes):
    """Logits `(batch, num_classes)` of a sequence whose first token is the class token: LayerNorm, Dense."""
    return _norm_and_classify(x[:, 0], num_classes)


def _norm_and_classify(x, num_classes):
    x = LayerNorm(dtype="float32", name="norm")(x)
    return keras.layers.Dense(num_classes, kernel_initializer=truncated_normal(), dtype="float32", name="head")(x)
