import keras
import numpy as np
import pytest
import torch

from keras_robust.layers import ClassToken, PositionEmbedding, TransformerBlock


def resized_by_torch(embedding, rows, columns):
    """The rule of the published evaluation, by PyTorch's own resize."""
    g_rows, g_columns, _ = embedding.shape
    resized = torch.nn.functional.interpolate(
        torch.tensor(embedding.transpose(2, 0, 1)[None]),
        scale_factor=((rows + 0.1) / g_rows, (columns + 0.1) / g_columns),
        mode="bicubic",
        align_corners=False,
        antialias=False,
        recompute_scale_factor=False,
    )
    return resized[0].numpy().transpose(1, 2, 0)


def position_embedding(grid, channels, seed=0):
    layer = PositionEmbedding(grid)
    layer.build((None, None, None, channels))
    embedding = np.random.default_rng(seed).normal(size=(*grid, channels)).astype("float32")
    layer.set_weights([embedding])
    return layer, embedding


@pytest.mark.parametrize(
    ("grid", "size"), [((14, 14), (16, 24)), ((14, 14), (14, 7)), ((2, 2), (3, 1)), ((4, 6), (5, 6)), ((1, 1), (2, 3))]
)
def test_position_embedding_is_resized_as_torch_does(grid, size):
    layer, embedding = position_embedding(grid, 3)
    patches = np.random.default_rng(1).normal(size=(2, *size, 3)).astype("float32")
    added = keras.ops.convert_to_numpy(layer(patches)) - patches
    expected = np.broadcast_to(resized_by_torch(embedding, *size), patches.shape)
    np.testing.assert_allclose(added, expected, atol=2e-5)


@pytest.mark.parametrize("grid", [(14, 14), (4, 6)])
def test_position_embedding_is_untouched_on_the_native_grid(grid):
    layer, embedding = position_embedding(grid, 3)
    patches = np.random.default_rng(1).normal(size=(2, *grid, 3)).astype("float32")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(patches)), patches + embedding)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow compiles for unknown sizes")
def test_position_embedding_at_sizes_unknown_until_run_time():
    import tensorflow as tf

    layer, embedding = position_embedding((4, 6), 3)
    compiled = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 3))])
    for size in [(4, 6), (4, 7), (6, 4), (1, 9)]:
        added = compiled(tf.zeros((2, *size, 3))).numpy()
        if size == (4, 6):
            np.testing.assert_array_equal(added[1], embedding)
        else:
            np.testing.assert_allclose(added[1], resized_by_torch(embedding, *size), atol=1e-5)


def test_position_embedding_is_resized_in_float32_under_a_16_bit_policy():
    _, embedding = position_embedding((4, 4), 3)
    layer = PositionEmbedding((4, 4), dtype="mixed_bfloat16")
    layer.build((None, None, None, 3))
    layer.set_weights([embedding])
    added = keras.ops.cast(layer(np.zeros((1, 7, 5, 3), "float32")), "float32")
    expected = resized_by_torch(embedding, 7, 5)
    # Half a unit in the last of bfloat16's eight bits: one rounding, at the end.
    np.testing.assert_allclose(keras.ops.convert_to_numpy(added)[0], expected, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("position", [False, True])
def test_class_token_comes_first(position):
    layer = ClassToken(position=position)
    patches = np.arange(2 * 2 * 3 * 4, dtype="float32").reshape(2, 2, 3, 4)
    assert layer.compute_output_shape(patches.shape) == tuple(layer(patches).shape) == (2, 7, 4)
    weights = [np.full(w.shape, 10.0**i, "float32") for i, w in enumerate(layer.weights)]
    layer.set_weights(weights)
    tokens = keras.ops.convert_to_numpy(layer(patches))
    np.testing.assert_array_equal(tokens[:, 0], np.full((2, 4), 11.0 if position else 1.0))
    np.testing.assert_array_equal(tokens[:, 1:], patches.reshape(2, 6, 4))


@pytest.mark.parametrize(
    "layer",
    [
        PositionEmbedding((4, 6), name="a"),
        ClassToken(position=True, name="b"),
        TransformerBlock(4, 0.1, 0.2, 1.5, name="d"),
    ],
)
def test_config_round_trip(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
