import keras
import numpy as np
import pytest

from keras_robust.layers import PatchMerging, SwinBlock, WindowAttention


@pytest.mark.parametrize("shifted", [False, True])
def test_windows_do_not_see_each_other(shifted):
    """A change of one pixel changes the outputs of its window, and no others."""
    layer = WindowAttention(2, window_size=4, shifted=shifted)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 4)).astype("float32")
    changed = x.copy()
    changed[0, 0, 5] += 1
    difference = keras.ops.convert_to_numpy(layer(changed) - layer(x))[0]
    rows, columns = np.nonzero(np.abs(difference).max(-1))
    # Shifted by two: the window of the pixel is cut by the upper border.
    expected = (
        [(r, c) for r in range(2) for c in range(2, 6)] if shifted else [(r, c) for r in range(4) for c in range(4, 8)]
    )
    assert list(zip(rows.tolist(), columns.tolist())) == expected


@pytest.mark.parametrize("size", [(4, 6), (5, 3)])
def test_patch_merging_shapes(size):
    layer, x = PatchMerging(8), np.zeros((2, *size, 4), "float32")
    assert layer.compute_output_shape(x.shape) == tuple(layer(x).shape) == (2, -(-size[0] // 2), -(-size[1] // 2), 8)


@pytest.mark.parametrize(
    "layer",
    [
        WindowAttention(2, 4, True, name="a"),
        SwinBlock(2, 4, True, 0.1, 1e-3, True, name="b"),
        PatchMerging(8, 1e-3, name="c"),
    ],
)
def test_config_round_trip(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
