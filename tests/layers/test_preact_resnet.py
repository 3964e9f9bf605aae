import keras
import numpy as np
import pytest

from keras_robust.layers import PreActBlock


@pytest.mark.parametrize("same_padding", [False, True])
@pytest.mark.parametrize(("channels", "stride"), [(3, 1), (6, 1), (3, 2), (6, 2)])
def test_shapes_and_shortcut(channels, stride, same_padding):
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype("float32")
    layer = PreActBlock(channels, stride, same_padding=same_padding)
    assert (
        layer.compute_output_shape(x.shape) == tuple(layer(x).shape) == (2, -(-5 // stride), -(-4 // stride), channels)
    )
    assert (layer.shortcut is None) == ((channels, stride) == (3, 1))


@pytest.mark.parametrize(("same_padding", "expected"), [(False, [[4, 6], [6, 9]]), (True, [[9, 6], [6, 4]])])
def test_where_the_zeros_are(same_padding, expected):
    """A kernel of ones counts the pixels under it: of a map of 4x4, with zeros on each side or only after it."""
    layer = PreActBlock(1, 2, same_padding=same_padding, shortcut_size=3, shortcut_activated=False)
    x = np.ones((1, 4, 4, 1), "float32")
    layer(x)
    layer.conv2.kernel.assign(np.zeros((3, 3, 1, 1)))
    layer.shortcut.kernel.assign(np.ones((3, 3, 1, 1)))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x))[0, :, :, 0], expected)


def test_the_shortcut_starts_before_or_after_the_activation():
    x = np.array([-1.0, 2.0], "float32").reshape(1, 1, 2, 1) * np.sqrt(1 + 1e-5)
    for activated, expected in ((True, [0, 2]), (False, [-1, 2])):
        layer = PreActBlock(2, shortcut_activated=activated)
        layer(x)
        layer.conv2.kernel.assign(np.zeros((3, 3, 2, 2)))
        layer.shortcut.kernel.assign(np.ones((1, 1, 1, 2)))
        y = keras.ops.convert_to_numpy(layer(x))[0, 0, :, 0]
        np.testing.assert_allclose(y, expected, rtol=1e-4)


def test_config_round_trip():
    layer = PreActBlock(8, 2, "silu", True, 3, False, 0.1, name="a")
    assert PreActBlock.from_config(layer.get_config()).get_config() == layer.get_config()
