"""Models to export, and how to verify them quickly."""

from dataclasses import replace

import keras

import keras_robust as kr
from keras_robust.models import registry

# Few images and steps, and no bound on speed, which depends on what else the machine does.
QUICK = kr.export.VerificationSettings(n_examples=12, n_iter=3, seconds=0.0, min_throughput=0.0)
NAMES = ["ant", "bee", "cat", "dog", "eel", "fox", "gnü"]
THREAT = kr.ThreatModel("L2", 0.5)


def small_model(name):
    """An architecture with few blocks and seven classes, and logits of the size of a trained model's."""
    keras.utils.set_random_seed(0)
    scale, few = ({"layer_scale_init": 0.1}, {"depths": (1, 1, 2, 1)}) if "convnext" in name else ({}, {"depth": 3})
    row = kr.models.architecture(name)
    try:
        registry.ARCHITECTURES[name] = replace(row, **few)
        model = kr.models.create(name, len(NAMES), 32, **scale)
    finally:
        registry.ARCHITECTURES[name] = row
    kernel = model.get_layer("head").kernel
    kernel.assign(20 * keras.ops.convert_to_numpy(kernel))
    return model


def toy_model():
    """Three classes, quick on every backend."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    h = keras.layers.Conv2D(8, 3, strides=2, activation="gelu", kernel_initializer="random_normal")(inputs)
    h = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(h))
    return keras.Model(inputs, keras.layers.Dense(3, kernel_initializer="random_normal")(h), name="toy")
