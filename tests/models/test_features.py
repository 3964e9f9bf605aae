import keras
import numpy as np
import pytest

import keras_robust
from keras_robust.models import registry
from keras_robust.models.convnext import ConvNeXt, IsotropicConvNeXt
from keras_robust.models.preact_resnet import PreActResNet
from keras_robust.models.resnet import ResNet
from keras_robust.models.swin import Swin
from keras_robust.models.vit import ViT
from keras_robust.models.xcit import XCiT

# Row, and the channels of the maps by stride.
CASES = {
    "convnext": (ConvNeXt((1, 2, 1, 1), (4, 6, 8, 10)), {4: 4, 8: 6, 16: 8, 32: 10}),
    "convnext_convs": (ConvNeXt((1, 1, 1, 1), (4, 6, 8, 10), conv_stem=(2, 4)), {4: 4, 8: 6, 16: 8, 32: 10}),
    "resnet": (ResNet((1, 2, 1, 1), (8, 12, 16, 24), stem_channels=4), {4: 8, 8: 12, 16: 16, 32: 24}),
    "robarch": (ResNet((1, 1, 2, 1), (8, 16, 24, 32), **registry.ROBARCH), {4: 8, 8: 16, 16: 24, 32: 32}),
    "swin": (Swin(4, (1, 1, 2, 1), (1, 1, 2, 2), window_size=3), {4: 4, 8: 8, 16: 16, 32: 32}),
    "basic": (ResNet((1, 2, 1, 1), (4, 4, 6, 8), basic=True), {4: 4, 8: 4, 16: 6, 32: 8}),
    "preact": (PreActResNet((1, 2, 1, 1, 1), (4, 6, 8, 10, 12), 4), {1: 4, 2: 6, 4: 8, 8: 10, 16: 12}),
    "isotropic": (IsotropicConvNeXt(2, 8), {16: 8}),
    "vit": (ViT(8, 2, depth=2), {16: 8}),
    "xcit": (XCiT(8, 2, depth=2), {16: 8}),
}


@pytest.fixture(params=CASES)
def case(request):
    row, channels = CASES[request.param]
    registry.register(request.param, row)
    return keras_robust.models.create(request.param, num_classes=5, input_size=32), channels


@pytest.mark.once
def test_one_map_for_each_stride(case):
    model, channels = case
    pyramid = keras_robust.models.features(model)
    maps = pyramid.predict_on_batch(np.random.default_rng(0).random((2, 64, 96, 3)).astype("float32"))
    maps = maps if len(channels) > 1 else [maps]
    assert [x.shape for x in maps] == [(2, 64 // stride, 96 // stride, n) for stride, n in channels.items()]
    assert all(np.abs(x - x.mean((1, 2), keepdims=True)).max() > 0 for x in maps)


@pytest.mark.once
def test_weights_are_shared(case):
    model, channels = case
    pyramid = keras_robust.models.features(model, levels=[16])
    assert {id(v) for v in pyramid.weights} < {id(v) for v in model.weights}
    assert pyramid.outputs[0].shape == (None, None, None, channels[16])


@pytest.mark.once
def test_order_of_the_levels():
    model = keras_robust.models.create("convnext_atto")
    assert [x.shape[-1] for x in keras_robust.models.features(model, (32, 8)).outputs] == [320, 80]


@pytest.fixture
def vit():
    registry.register("vit", ViT(8, 2, depth=2))
    return keras_robust.models.create("vit", num_classes=3, input_size=32)


def test_the_map_of_a_vit_holds_its_last_tokens(vit):
    assert isinstance(keras_robust.models.features(vit)(keras.KerasTensor((1, 32, 48, 3))), list)
    x = np.random.default_rng(0).random((1, 32, 48, 3)).astype("float32")
    patch_map = keras_robust.models.features(vit).predict_on_batch(x)
    tokens = keras.Model(vit.input, vit.get_layer("blocks_1").output).predict_on_batch(x)
    np.testing.assert_array_equal(patch_map, tokens[:, 1:].reshape(1, 2, 3, 8))


@pytest.mark.once
@pytest.mark.parametrize("levels", [(4, 16), (), (64,)])
def test_refuses_strides_that_the_family_lacks(vit, levels):
    with pytest.raises(ValueError, match=r"levels must be strides that vit has, of \(16,\)"):
        keras_robust.models.features(vit, levels)


@pytest.mark.once
def test_refuses_models_of_other_makers():
    inputs = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match=r"model must be from keras_robust\.models\.create"):
        keras_robust.models.features(keras.Model(inputs, inputs, name="mine"))


def test_reloads(vit, tmp_path):
    pyramid = keras_robust.models.features(vit)
    pyramid.save(tmp_path / "pyramid.keras")
    x = np.random.default_rng(0).random((1, 48, 32, 3)).astype("float32")
    again = keras.saving.load_model(tmp_path / "pyramid.keras")
    np.testing.assert_array_equal(again.predict_on_batch(x), pyramid.predict_on_batch(x))
