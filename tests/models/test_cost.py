import keras
import numpy as np
import pytest

import keras_robust
from keras_robust.layers import Attention
from keras_robust.models import multiply_adds, parameters

pytestmark = pytest.mark.once

# Multiply-adds at 224 pixels as published, in 10^9.
PUBLISHED = {
    "resnet50": 4.1,
    "xcit_small": 4.8,
    "vit_small": 4.6,
    "vit_small_convstem": 5.0,
    "vit_medium": 8.0,
    "vit_medium_convstem": 8.4,
    "vit_base": 17.6,
    "vit_base_convstem": 17.9,
    "convnext_isotropic_small": 4.3,
    "convnext_isotropic_small_convstem": 4.7,
    "convnext_tiny": 4.5,
    "convnext_tiny_convstem": 4.6,
    "convnext_small": 8.7,
    "convnext_small_convstem": 8.8,
    "convnext_base": 15.4,
    "convnext_base_convstem": 16.0,
    "convnext_large": 34.4,
    "convnext_large_convstem": 35.5,
    "robarch_small": 6.3,
    "robarch_large": 25.7,
    "swin_small": 8.7,
    "swin_base": 15.5,
    "swin_large": 34.5,
    "convnextv2_large": 34.4,
    "resnet18": 1.8,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_multiply_adds_are_within_3_percent_of_the_published(name):
    with keras.StatelessScope(initialize_variables=False):
        model = keras_robust.models.create(name)
        assert multiply_adds(model, 224) == pytest.approx(1e9 * PUBLISHED[name], rel=0.03)


def test_counts_of_single_layers():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, strides=2)(inputs)  # 8 x 9 -> 3 x 4 positions
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(5)(x))
    assert multiply_adds(model, (8, 9)) == 3 * 4 * (27 * 8) + 3 * 4 * (9 * 8) + 8 * 5
    assert parameters(model) == (27 + 1) * 8 + (9 + 1) * 8 + (8 + 1) * 5


def test_attention_products_count():
    inputs = keras.Input((7, 4, 6))
    tokens = keras.layers.Reshape((28, 6))(inputs)
    model = keras.Model(inputs, Attention(2)(tokens))
    products = 2 * 28 * 28 * 6
    assert multiply_adds(model, (7, 4)) == 28 * 6 * 24 + products


def test_batch_norm_has_two_parameters_per_channel():
    inputs = keras.Input((None, None, 3))
    assert parameters(keras.Model(inputs, keras.layers.BatchNormalization()(inputs))) == 6


def test_counting_leaves_the_model_as_it_was():
    model = keras_robust.models.create("vit_tiny", num_classes=2, input_size=32)
    before = model.get_weights()
    multiply_adds(model, 32), multiply_adds(model, (64, 32))
    assert model.get_layer("blocks_3").output.shape == (None, None, 192)
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_refuses_a_size_that_the_model_cannot_take():
    with pytest.raises(ValueError, match="multiples of 16, received height=40, width=32"):
        multiply_adds(keras_robust.models.create("vit_tiny"), (40, 32))
