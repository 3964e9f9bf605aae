import math
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_robust
from keras_robust.models import registry
from keras_robust.models.convnext import ConvNeXt, ConvNeXtV2, IsotropicConvNeXt
from keras_robust.models.preact_resnet import PreActResNet
from keras_robust.models.resnet import ResNet
from keras_robust.models.swin import Swin
from keras_robust.models.vit import ViT
from keras_robust.models.xcit import XCiT

from .torch_reference import set_random_weights

# The published counts, 1,000 classes, 224 pixels, which are timm's and torchvision's.
PARAMETERS = {
    "convnext_tiny": 28_589_128,
    "convnext_tiny_convstem": 28_627_432,
    "convnext_small": 50_223_688,
    "convnext_small_convstem": 50_261_992,
    "convnext_base": 88_591_464,
    "convnext_base_convstem": 88_753_416,
    "convnext_large": 197_767_336,
    "convnext_large_convstem": 198_134_680,
    "convnext_isotropic_small": 22_308_712,
    "convnext_isotropic_small_convstem": 23_035_624,
    "vit_small": 22_050_664,
    "vit_small_convstem": 22_777_576,
    "vit_medium": 38_849_512,
    "vit_medium_convstem": 39_527_272,
    "vit_base": 86_567_656,
    "vit_base_convstem": 87_147_112,
    "vit_tiny": 5_717_416,
    "convnext_large_meansparse": 197_767_336,
    "convnextv2_atto": 3_708_400,
    "convnextv2_large": 197_956_840,
    "vit_large_patch14": 304_203_752,
    "vit_huge_patch14": 632_045_800,
    "vit_giant_patch14": 1_012_611_432,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnet50_gelu": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "wide_resnet50_2": 68_883_240,
    "xcit_small": 26_253_304,
    "xcit_medium": 46_401_160,
    "xcit_large": 103_792_648,
    "swin_small": 49_606_258,
    "swin_base": 87_768_224,
    "swin_base_mimir": 87_768_224,
    "swin_large": 196_532_476,
    "swin_large_meansparse": 196_532_476,
    "swin_large_mimir": 196_794_556,
    "robarch_small": 26_143_228,
    "robarch_medium": 45_901_928,
    "robarch_large": 104_065_776,
}
# RobustBench's nets, 10 classes.
CIFAR_PARAMETERS = {
    "wide_resnet28_10": 36_479_194,
    "wide_resnet28_10_swish": 36_479_194,
    "wide_resnet34_10": 46_160_474,
    "wide_resnet34_10_swish": 46_160_474,
    "wide_resnet70_16": 266_796_506,
    "wide_resnet70_16_swish": 266_796_506,
    "preact_resnet18": 11_171_146,
    "preact_resnet18_norm": 11_172_170,
    "preact_resnet18_swish": 12_548_426,
}
SMALL = {
    "small_convnext": ConvNeXt((1, 1, 1, 1), (4, 6, 8, 10), conv_stem=(2, 4)),
    "small_isotropic": IsotropicConvNeXt(1, 8),
    "small_resnet": ResNet((1, 1, 1, 1), (8, 8, 8, 8), **registry.ROBARCH),
    "small_basic": ResNet((1, 1, 1, 1), (4, 4, 6, 8), basic=True),
    "small_preact": PreActResNet((1, 1), (4, 8), 4, **registry.DEEPMIND),
    "small_v2": ConvNeXtV2((1, 1), (4, 6), mean_sparse=True),
    "small_xcit": XCiT(8, 2, depth=1),
    "small_swin": Swin(4, (2, 1), (1, 2), window_size=3),
    "small_vit": ViT(8, 2, depth=2, conv_stem=(2, 3, 4, 6), layer_scale_init=1e-6, class_position=False),
}


@pytest.fixture(params=SMALL)
def small(request):
    """The name of a small model, one per family, that `create` knows during the test."""
    registry.register(request.param, SMALL[request.param])
    return request.param


def images(*size, batch=2):
    return np.random.RandomState(0).uniform(size=(batch, *size, 3)).astype("float32")


@pytest.mark.once
@pytest.mark.parametrize("name", PARAMETERS | CIFAR_PARAMETERS)
def test_parameter_count(name):
    # In a stateless scope variables have shapes, but no values: nothing is allocated.
    with keras.StatelessScope(initialize_variables=False):
        model = keras_robust.models.create(name, num_classes=10 if name in CIFAR_PARAMETERS else 1000)
    # The moving statistics of batch norm do not count.
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == (PARAMETERS | CIFAR_PARAMETERS)[name]


def test_largest_model_is_built_in_seconds():
    start = time.process_time()
    keras_robust.models.create("convnext_large_convstem")
    assert time.process_time() - start < 10


@pytest.mark.once
def test_names():
    names = keras_robust.models.names()
    assert set(PARAMETERS) <= set(names)
    for family in ("convnext_", "vit_"):
        plain = {
            name
            for name in names
            if name.startswith(family) and not name.endswith(("_convstem", "_patch14", "_meansparse"))
        }
        assert {f"{name}_convstem" for name in plain} <= set(names)


@pytest.mark.once
def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(
        ValueError,
        match=r"name must be one of .*received 'convnext_tiny_convstm'. Did you mean 'convnext_tiny_convstem'",
    ):
        keras_robust.models.create("convnext_tiny_convstm")
    for name in ("zzz", None, ["vit_tiny", "vit_small"]):
        with pytest.raises(ValueError, match=r"name must be one of"):
            keras_robust.models.create(name)


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be an integer >= 1; received 0"),
        ({"num_classes": 2.0}, "num_classes must be an integer >= 1; received 2.0"),
        ({"input_size": 100}, "input_size must be .* multiples of 16 pixels, received 100"),
        ({"input_size": (32, 0)}, r"input_size must be .* received \(32, 0\)"),
        ({"input_size": None}, "input_size must be .* received None"),
        ({"input_size": (32, 32, 3)}, "input_size must be one or two"),
        ({"drop_path_rate": "0.1"}, "drop_path_rate must lie in .* received '0.1'"),
        ({"input_size": "224"}, "input_size must be .* received '224'"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate must lie in \[0, 1\), received 1.0"),
        ({"normalization": "imagenet"}, r"normalization must be None or a pair \(mean, std\), received 'imagenet'"),
        ({"normalization": (0.5, 0.5)}, "mean must be a sequence"),
        ({"normalization": ([0.5], [0.5])}, "1 channels"),
        ({"layer_scale_init": 0.1}, "layer_scale_init must be None: vit_tiny has no LayerScale, received 0.1"),
    ],
)
def test_create_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_robust.models.create("vit_tiny", **arguments)


@pytest.mark.once
def test_create_refuses_a_layer_scale_that_is_no_number():
    with pytest.raises(ValueError, match="layer_scale_init must be a finite number"):
        keras_robust.models.create("convnext_atto", layer_scale_init=float("nan"))


@pytest.mark.once
def test_options_reach_the_layers():
    model = keras_robust.models.create(
        "convnext_atto", num_classes=np.int64(7), drop_path_rate=0.22, layer_scale_init=0.5
    )
    assert model.name == "convnext_atto"
    assert model.output_shape == (None, 7)
    blocks = [layer for layer in model.layers if "blocks" in layer.name]
    np.testing.assert_allclose([block.drop.rate for block in blocks], np.linspace(0, 0.22, 12))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(blocks[-1].scale.gamma.value), np.full(320, 0.5))


def test_logits_are_float32_under_16_bit_policies(small):
    keras.utils.set_random_seed(0)
    exact = keras_robust.models.create(small, num_classes=5, input_size=32)
    set_random_weights(exact)  # initial ones of so few channels can leave almost nothing to normalise but rounding
    x = images(48, 48)
    expected = exact.predict_on_batch(x)
    for policy in ("mixed_bfloat16", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        model = keras_robust.models.create(small, num_classes=5, input_size=32, normalization=([0.0] * 3, [1.0] * 3))
        model.set_weights(exact.get_weights())
        logits = model.predict_on_batch(x)
        assert logits.dtype == "float32"
        assert keras.backend.standardize_dtype(model.outputs[0].dtype) == "float32"
        # Rounding takes features over the thresholds of MeanSparse.
        bound = 0.1 if small == "small_v2" else 0.05
        assert 0 < np.abs(logits - expected).max() < bound * np.abs(expected).max()


def test_save_and_reload_in_a_process_that_only_imports_the_package(tmp_path):
    x = images(48, 32)
    np.save(tmp_path / "x.npy", x)
    for name, row in SMALL.items():
        registry.register(name, row)
        model = keras_robust.models.create(
            name, num_classes=5, input_size=32, drop_path_rate=0.1, normalization=([0.5] * 3, [0.25] * 3)
        )
        model.save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.npy", model.predict_on_batch(x))
    program = f"""
import keras, numpy as np, keras_robust
x = np.load(r"{tmp_path}/x.npy")
for name in {list(SMALL)}:
    model = keras.saving.load_model(rf"{tmp_path}/{{name}}.keras")
    assert model.name == name
    np.testing.assert_array_equal(model.predict_on_batch(x), np.load(rf"{tmp_path}/{{name}}.npy"))
    # What was loaded can be saved again.
    model.save(r"{tmp_path}/again.keras")
    keras.saving.load_model(r"{tmp_path}/again.keras")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "too_small", "message"),
    [
        ("small_convnext", (31, 64), "at least 32 pixels, received height=31, width=64"),
        ("small_isotropic", (16, 15), "at least 16 pixels, received height=16, width=15"),
        ("small_vit", (32, 40), "multiples of 16, received height=32, width=40"),
        ("small_preact", (1, 4), "at least 2 pixels, received height=1, width=4"),
    ],
)
def test_sizes_that_a_model_cannot_take(name, too_small, message):
    registry.register(name, SMALL[name])
    model = keras_robust.models.create(name, num_classes=5, input_size=32)
    for call in (model, model.predict_on_batch, lambda x: model(keras.KerasTensor(x.shape))):
        with pytest.raises(ValueError, match=message):
            call(images(*too_small))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow compiles for unknown sizes")
def test_one_compiled_function_for_all_sizes(small):
    import tensorflow as tf

    model = keras_robust.models.create(small, num_classes=5, input_size=32)
    compiled = tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 3))])
    for size in [(32, 32), (48, 32), (64, 80)]:
        x = images(*size)
        np.testing.assert_allclose(compiled(x), model(x), rtol=1e-4, atol=1e-5)


def test_stochastic_depth_acts_in_training_only():
    registry.register("small_vit", SMALL["small_vit"])
    model = keras_robust.models.create("small_vit", num_classes=5, input_size=32, drop_path_rate=0.9)
    set_random_weights(model)
    x = np.repeat(images(32, 32, batch=1), 64, axis=0)
    calm = keras.ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(calm, np.broadcast_to(calm[:1], calm.shape), atol=1e-5)
    wild = keras.ops.convert_to_numpy(model(x, training=True))
    assert np.abs(wild - wild[:1]).max() > 1e-3
