"""Weight-decay groups by the published rule, and updates against the formula of AdamW."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_robust as kr
from keras_robust.training import adamw, undecayed
from keras_robust.training.optimizer import AdamW

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
    "xcit_small": {
        "blocks_0/attn/temperature": True,
        "blocks_0/norm1/gamma": False,
        "blocks_0/attn/qkv/kernel": True,
    },
    "resnet50": {
        "stem/conv/kernel": True,
        "stem/norm/gamma": False,
        "stages_0_blocks_0/shortcut_norm/gamma": False,
        "stages_0_blocks_0/shortcut_norm/beta": False,
        "head/bias": False,
    },
}


@pytest.mark.once
@pytest.mark.parametrize("name", GROUPS)
def test_groups_of_the_families(name):
    model = kr.models.create(name, num_classes=3, input_size=32)
    left_out = {weight.path for weight in undecayed(model)}
    assert {path: path not in left_out for path in GROUPS[name]} == GROUPS[name]
    assert left_out <= {weight.path for weight in model.trainable_weights}


def test_other_models_go_by_rank():
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.LayerNormalization()])
    assert len(undecayed(net)) == 3  # bias, gamma, beta


@pytest.mark.once
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


def _formula(weight, gradients, decays):
    """AdamW in float64: Loshchilov & Hutter 2019, algorithm 2."""
    m = v = np.zeros_like(weight)
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        if decays:
            weight = weight - 0.01 * 0.05 * weight
        weight = weight - 0.01 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
    return weight


# Gradients about as large as epsilon tell where it is added.
@pytest.mark.parametrize("scale", [1.0, 1e-8])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_updates_follow_the_formula(scale, accumulate):
    rng = np.random.default_rng(0)
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    start = [rng.normal(size=w.shape) for w in net.get_weights()]
    net.set_weights(start)
    gradients = [[scale * rng.normal(size=w.shape) for w in start] for _ in range(5)]
    optimizer = adamw(net, 0.01, accumulate=accumulate)
    for each in gradients:
        for _ in range(accumulate):
            optimizer.apply([ops.convert_to_tensor(g, "float32") for g in each], net.trainable_variables)
    for i, (weight, decays) in enumerate(zip(net.get_weights(), (True, False))):
        expected = _formula(start[i], [each[i] for each in gradients], decays)
        np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=2e-6)
        other = _formula(start[i], [each[i] for each in gradients], not decays)
        assert np.abs(weight - other).max() > 1e-4


def test_first_updates_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    start, gradient = np.float32([1.0, -2.0, 0.5]), np.float32([1e-8, 3e-9, 1.0])
    theirs = torch.nn.Parameter(torch.tensor(start))
    reference = torch.optim.AdamW([theirs], lr=0.1, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.05)
    ours = keras.Variable(start)
    optimizer = AdamW(0.1, weight_decay=0.05, beta_2=0.95, epsilon=1e-8)
    for _ in range(3):
        theirs.grad = torch.tensor(gradient)
        reference.step()
        optimizer.apply([ops.convert_to_tensor(gradient)], [ours])
        np.testing.assert_allclose(ops.convert_to_numpy(ours.value), theirs.detach().numpy(), rtol=1e-5)


def test_the_optimizer_is_saved_and_loaded(tmp_path):
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    net.compile(adamw(net, 0.01, epsilon=1e-6), "mse")
    net.optimizer.build(net.trainable_variables)
    net.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras").optimizer
    assert type(loaded) is AdamW
    assert loaded.get_config()["epsilon"] == 1e-6
