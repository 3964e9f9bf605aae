import keras
import numpy as np
import pytest
from scipy import stats

from keras_robust.layers import ConvStem
from keras_robust.layers.initializers import FanInUniform, FanOutNormal, Normal


def test_follows_the_normal_distribution():
    keras.utils.set_random_seed(0)
    values = keras.ops.convert_to_numpy(Normal(0.02)((200, 500))).ravel()
    assert values.std() == pytest.approx(0.02, rel=0.01)
    assert stats.kstest(values, stats.norm(scale=0.02).cdf).pvalue > 0.01


def test_fan_in_uniform_is_pytorchs_own():
    keras.utils.set_random_seed(0)
    kernel, bias = FanInUniform()((3, 3, 3, 512)), FanInUniform(27)((5000,))
    for values in (kernel, bias):
        values = keras.ops.convert_to_numpy(values).ravel()
        assert stats.kstest(values, stats.uniform(-(27**-0.5), 2 * 27**-0.5).cdf).pvalue > 0.01


def test_conv_stem_begins_as_published():
    """Croce & Singh's stems are PyTorch modules that nothing initialises anew: biases are random, of std 0.111."""
    torch = pytest.importorskip("torch")
    keras.utils.set_random_seed(0)
    stem = ConvStem((48, 96), stride=4)
    stem.build((None, None, None, 3))
    for conv, channels in zip(stem.convs, ((3, 48), (48, 96))):
        theirs = torch.nn.Conv2d(*channels, 3)
        for ours, reference in ((conv.kernel, theirs.weight), (conv.bias, theirs.bias)):
            ours = keras.ops.convert_to_numpy(ours)
            assert ours.std() == pytest.approx(float(reference.detach().std()), rel=0.25)
            assert abs(ours).max() <= (9 * channels[0]) ** -0.5
    black = keras.ops.zeros((1, 16, 16, 3))
    changed = keras.ops.convert_to_numpy(stem(black + 4 / 255) - stem(black))
    plain = keras.ops.convert_to_numpy(stem(black))
    assert np.linalg.norm(changed) < 0.25 * np.linalg.norm(plain)


def test_fan_out_normal_keeps_the_variance_of_gradients():
    keras.utils.set_random_seed(0)
    values = keras.ops.convert_to_numpy(FanOutNormal()((3, 3, 32, 64)))
    assert values.var() == pytest.approx(2 / (3 * 3 * 64), rel=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shape_and_dtype(dtype):
    values = Normal()((2, 3), dtype=dtype)
    assert tuple(values.shape) == (2, 3)
    assert keras.backend.standardize_dtype(values.dtype) == dtype


def test_same_seed_same_weights_and_every_draw_anew():
    initializer = Normal()

    def draw():
        keras.utils.set_random_seed(7)
        return [keras.ops.convert_to_numpy(initializer((4, 5))) for _ in range(2)]

    (first, second), again = draw(), draw()
    np.testing.assert_array_equal(again, [first, second])
    assert (first != second).any()
    # A value of this seed, the same on every backend.
    assert first[0, 0] == pytest.approx(0.0043926695, rel=1e-6)
