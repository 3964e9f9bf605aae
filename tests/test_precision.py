import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.evaluation import as_float32


def create(**options):
    return kr.models.create("vit_tiny_convstem", num_classes=3, input_size=16, **options)


@pytest.fixture
def mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def test_every_layer_computes_in_float32(mixed_precision):
    mixed = create()
    plain = as_float32(mixed)
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    keras.config.set_dtype_policy("float32")
    expected = create()
    expected.set_weights(mixed.get_weights())
    x = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    logits = [keras.ops.convert_to_numpy(model(x)) for model in (mixed, plain, expected)]
    np.testing.assert_array_equal(logits[1], logits[2])
    assert np.abs(logits[0] - logits[2]).max() > 0


def test_a_float32_model_is_returned_itself():
    model = create()
    assert as_float32(model) is model
