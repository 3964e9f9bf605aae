"""Weight-decay groups by the published rule, and updates against the formula of AdamW."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_robust as kr
from keras_robust.training import adamw, undecayed

# Which weights decay, as in the reference's PyTorch names: True for the decayed.
GROUPS = {
    "convnext_atto_convstem": {
        "stem/conv_0/kernel": True,
        "stem/conv_0/bias": False,
        "stem/norm_0/gamma": True,
        "stem/norm_0/beta": False,
        "stages_0_blocks_0/scale/gamma": True,
        "stages_1_downsample/norm/gamma": True,
        "head/kernel": True,
        "head/bias": False,
    },
    "vit_tiny": {
        "class_token/token": True,
        "class_token/embedding": True,
        "position/embedding": True,
        "blocks_0/norm1/gamma": False,
        "blocks_0/attn/qkv/kernel": True,
        "blocks_0/attn/qkv/bias": False,
        "norm/beta": False,
    },
    "resnet50": {
        "stem/conv/kernel": True,
        "stem/norm/gamma": False,
        "stages_0_blocks_0/shortcut_norm/gamma": False,
        "stages_0_blocks_0/shortcut_norm/beta": False,
        "head/bias": False,
    },
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups_of_the_families(name):
    model = kr.models.create(name, num_classes=3, input_size=32)
    left_out = {weight.path for weight in undecayed(model)}
    assert {path: path not in left_out for path in GROUPS[name]} == GROUPS[name]
    assert left_out <= {weight.path for weight in model.trainable_weights}


def test_other_models_go_by_rank():
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.LayerNormalization()])
    assert len(undecayed(net)) == 3  # bias, gamma, beta


def test_the_rule_goes_by_the_architecture_and_not_by_the_name(tmp_path):
    inputs = keras.Input((None, None, 3))
    h = keras.layers.LayerNormalization()(keras.layers.Conv2D(4, 3)(inputs))
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(h))
    impostor = keras.Model(inputs, outputs, name="resnet50")
    assert kr.models.architecture_of(impostor) is None
    assert len(undecayed(impostor)) == 4  # two biases, gamma, beta
    renamed = kr.models.create("convnext_atto", num_classes=3)
    expected = [weight.path for weight in undecayed(renamed)]
    renamed.name = "mine"
    renamed.save(tmp_path / "mine.keras")
    loaded = keras.models.load_model(tmp_path / "mine.keras")
    assert kr.models.architecture_of(loaded) == kr.models.architecture("convnext_atto")
    assert [weight.path for weight in undecayed(loaded)] == expected
    # A model that has one of ours inside decides for itself.
    assert kr.models.architecture_of(keras.Sequential([loaded])) is None


def _formula(weight, gradients, decays, keras_epsilon=True):
    """AdamW in float64: Loshchilov & Hutter 2019, algorithm 2, with epsilon where Keras or where PyTorch puts it."""
    m = v = np.zeros_like(weight)
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        if decays:
            weight = weight - 0.01 * 0.05 * weight
        root, correction = np.sqrt(v), np.sqrt(1 - 0.95**t)
        denominator = (root + 1e-8) / correction if keras_epsilon else root / correction + 1e-8
        weight = weight - 0.01 * m / (1 - 0.9**t) / denominator
    return weight


@pytest.mark.parametrize("keras_epsilon", [True, False])
def test_updates_follow_the_formula(keras_epsilon):
    rng = np.random.default_rng(0)
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    start = [rng.normal(size=w.shape) for w in net.get_weights()]
    net.set_weights(start)
    gradients = [[rng.normal(size=w.shape) for w in start] for _ in range(5)]
    optimizer = adamw(net, 0.01)
    for each in gradients:
        optimizer.apply([ops.convert_to_tensor(g, "float32") for g in each], net.trainable_variables)
    for i, (weight, decays) in enumerate(zip(net.get_weights(), (True, False))):
        expected = _formula(start[i], [each[i] for each in gradients], decays, keras_epsilon)
        np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-6)
        other = _formula(start[i], [each[i] for each in gradients], not decays, keras_epsilon)
        assert np.abs(weight - other).max() > 1e-4
