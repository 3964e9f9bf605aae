import keras
import numpy as np
import pytest

from keras_robust.layers import ImageInput, Normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_normalize_by_hand():
    x = np.random.default_rng(0).random((2, 4, 5, 3)).astype("float32")
    y = keras.ops.convert_to_numpy(Normalize(MEAN, STD)(x))
    np.testing.assert_allclose(y, (x - np.float32(MEAN)) / np.float32(STD), rtol=1e-6)


def test_normalize_keeps_float32_under_a_16_bit_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        y = Normalize(MEAN, STD)(np.full((1, 2, 2, 3), 0.5, "float32"))
    finally:
        keras.config.set_dtype_policy("float32")
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    np.testing.assert_allclose(keras.ops.convert_to_numpy(y)[0, 0, 0], (0.5 - np.array(MEAN)) / STD, rtol=1e-5)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (0.5, (1, 1, 1), "mean must be a sequence"),
        ("imagenet", (1, 1, 1), "mean must be a sequence"),
        ((0, 0, float("nan")), (1, 1, 1), "mean must be a sequence of finite numbers"),
        ((0, 0, 0), (1, 1), "one number per channel each"),
        ((0, 0, 0), (1, 0, 1), "std must be positive"),
    ],
)
def test_normalize_refuses(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Normalize(mean, std)


def test_normalize_refuses_another_number_of_channels():
    with pytest.raises(ValueError, match="3 channels"):
        Normalize(MEAN, STD)(np.zeros((1, 2, 2, 1), "float32"))


@pytest.mark.parametrize("size", [(16, 16), (32, 48)])
def test_check_resolution_passes_images_on(size):
    x = np.random.default_rng(0).random((1, *size, 3)).astype("float32")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(ImageInput(16, multiple_of=16)(x)), x)


@pytest.mark.parametrize("size", [(16, 15), (8, 16), (40, 32), (0, 16)])
@pytest.mark.parametrize("symbolic", [False, True])
def test_check_resolution_refuses(size, symbolic):
    x = keras.KerasTensor((None, *size, 3)) if symbolic else np.zeros((1, *size, 3), "float32")
    with pytest.raises(
        ValueError, match=f"at least 16 pixels and multiples of 16, received height={size[0]}, width={size[1]}"
    ):
        ImageInput(16, multiple_of=16)(x)


def test_check_resolution_passes_unknown_sizes():
    assert ImageInput(16)(keras.KerasTensor((None, None, 32, 3))).shape == (None, None, 32, 3)


@pytest.mark.parametrize("layer", [Normalize(MEAN, STD, name="a"), ImageInput(32, 16, name="b")])
def test_config_round_trip(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
