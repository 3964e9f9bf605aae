"""Every family gives the logits of a plain PyTorch model with the same weights, on every backend."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import keras_robust
from keras_robust.models import registry
from keras_robust.models.convnext import ConvNeXt, ConvNeXtV2, IsotropicConvNeXt
from keras_robust.models.preact_resnet import PreActResNet
from keras_robust.models.resnet import ResNet
from keras_robust.models.swin import Swin
from keras_robust.models.vit import ViT
from keras_robust.models.xcit import XCiT

from . import torch_reference as reference

# Small siblings of the registered models: row, reference, sizes of the images (native grid of the ViTs: 32 x 48).
CASES = {
    "convnext": (
        ConvNeXt((1, 2, 1, 1), (4, 6, 8, 10)),
        lambda w, x: reference.convnext(w, x, (1, 2, 1, 1), n_convs=0),
        [(32, 32), (39, 70)],
    ),
    "convnext_two_convs": (
        ConvNeXt((1, 1, 1, 1), (4, 6, 8, 10), conv_stem=(2, 4)),
        lambda w, x: reference.convnext(w, x, (1, 1, 1, 1), n_convs=2),
        [(32, 32), (39, 70)],
    ),
    "convnext_three_convs": (
        ConvNeXt((1, 1, 1, 1), (4, 6, 8, 10), conv_stem=(2, 3, 4)),
        lambda w, x: reference.convnext(w, x, (1, 1, 1, 1), n_convs=3),
        [(32, 32), (39, 70)],
    ),
    "isotropic": (
        IsotropicConvNeXt(2, 8),
        lambda w, x: reference.isotropic(w, x, 2, n_convs=0),
        [(32, 32), (17, 40)],
    ),
    "isotropic_convs": (
        IsotropicConvNeXt(2, 8, conv_stem=(2, 4, 6, 8)),
        lambda w, x: reference.isotropic(w, x, 2, n_convs=4),
        [(32, 32), (17, 40)],
    ),
    "vit": (
        ViT(8, 2, depth=2),
        lambda w, x: reference.vit(w, x, 2, heads=2, n_convs=0),
        [(32, 48), (64, 16), (32, 64)],
    ),
    "vit_convs": (
        ViT(8, 2, depth=2, conv_stem=(2, 3, 4, 6)),
        lambda w, x: reference.vit(w, x, 2, heads=2, n_convs=4),
        [(32, 48), (48, 48)],
    ),
    "vit_medium_style": (
        ViT(8, 2, depth=1, layer_scale_init=1e-6, class_position=False),
        lambda w, x: reference.vit(w, x, 1, heads=2, n_convs=0),
        [(32, 48), (16, 48)],
    ),
    "resnet_gelu": (
        ResNet((1, 2, 1, 1), (8, 12, 16, 20), stem_channels=6, stem_activation="gelu", activation="gelu"),
        lambda w, x: reference.resnet(w, x, (1, 2, 1, 1), pool=True, activation=F.gelu, stem_activation=F.gelu),
        [(32, 32), (39, 70)],
    ),
    "resnet": (
        ResNet((1, 2, 1, 1), (8, 12, 16, 24), stem_channels=4),
        lambda w, x: reference.resnet(w, x, (1, 2, 1, 1), pool=True),
        [(32, 32), (47, 70)],
    ),
    "robarch": (
        ResNet((2, 1, 1, 1), (16, 24, 32, 40), **registry.ROBARCH | {"stem_channels": 6}),
        lambda w, x: reference.resnet(w, x, (2, 1, 1, 1), pool=False, activation=F.silu, groups=2),
        [(32, 32), (47, 70)],
    ),
    "xcit": (
        XCiT(8, 2, depth=2),
        lambda w, x: reference.xcit(w, x, 2, class_depth=2, heads=2),
        [(32, 48), (40, 16)],
    ),
    # Maps that are cut into whole windows, maps with a margin, maps smaller than a window.
    "swin": (
        Swin(4, (2, 2), (1, 2), window_size=3),
        lambda w, x: reference.swin(w, x, (2, 2), (1, 2), windows=(3, 3)),
        [(48, 72), (60, 40), (32, 100)],
    ),
    # So large an epsilon that it shows wherever it is missing.
    "swin_mimir_style": (
        Swin(4, (2, 2), (1, 2), window_size=(4, 2), norm_epsilon=0.1),
        lambda w, x: reference.swin(w, x, (2, 2), (1, 2), windows=(4, 2), eps=0.1),
        [(48, 40)],
    ),
    "convnext_v2": (
        ConvNeXtV2((1, 1), (4, 6)),
        lambda w, x: reference.convnext(w, x, (1, 1), n_convs=0),
        [(32, 40)],
    ),
    "vit_average": (
        ViT(8, 2, depth=2, patch_size=8, mlp_ratio=1.75, average=True),
        lambda w, x: reference.vit(w, x, 2, heads=2, n_convs=0, patch=8, average=True),
        [(32, 48), (40, 24)],
    ),
    "resnet_basic": (
        ResNet((1, 2, 1, 1), (8, 12, 16, 24), stem_channels=4, basic=True),
        lambda w, x: reference.resnet(w, x, (1, 2, 1, 1), pool=True),
        [(32, 32), (47, 70)],
    ),
    "resnet_wide": (
        ResNet((1, 1, 1, 1), (8, 12, 16, 24), stem_channels=4, width_ratio=0.5),
        lambda w, x: reference.resnet(w, x, (1, 1, 1, 1), pool=True),
        [(32, 32), (47, 70)],
    ),
    "preact": (
        PreActResNet((2, 1, 1), (6, 8, 12), 4),
        lambda w, x: reference.preact(w, x, (2, 1, 1)),
        [(32, 32), (20, 30)],
    ),
    "preact_wong": (
        PreActResNet((2, 1, 1), (4, 8, 12), 4, shortcut_activated=False, final_norm=False),
        lambda w, x: reference.preact(w, x, (2, 1, 1), activated=False),
        [(32, 32), (20, 30)],
    ),
    "preact_deepmind": (
        PreActResNet((2, 1, 1), (6, 8, 12), 4, shortcut_size=3, shortcut_activated=False, **registry.DEEPMIND),
        lambda w, x: reference.preact(w, x, (2, 1, 1), F.silu, same=True, activated=False),
        [(32, 32), (21, 30)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_torch(case):
    row, reference_logits, sizes = CASES[case]
    registry.register(case, row)
    model = keras_robust.models.create(case, num_classes=5, input_size=(32, 48))
    weights = reference.set_random_weights(model)
    for size in sizes:
        x = np.random.RandomState(0).uniform(size=(2, *size, 3)).astype("float32")
        expected = reference_logits(weights, torch.tensor(x)).numpy()
        # Whole models run compiled, as in `fit`: eagerly JAX would compile every operation on its own.
        logits = model.predict_on_batch(x)
        scale = np.abs(expected).max()
        assert scale > 0.1
        np.testing.assert_allclose(logits, expected, atol=1e-4 * scale, err_msg=f"{case} at {size}")
        # The two images differ, and so do their logits: the comparison is not of constants.
        assert np.abs(expected[0] - expected[1]).max() > 1e-3 * scale


def test_normalization_comes_first():
    row, reference_logits, _ = CASES["isotropic"]
    registry.register("isotropic", row)
    mean, std = np.array([0.4, 0.5, 0.6], "float32"), np.array([0.2, 0.3, 0.4], "float32")
    model = keras_robust.models.create("isotropic", num_classes=5, normalization=(mean, std.tolist()))
    weights = reference.set_random_weights(model)
    x = np.random.RandomState(0).uniform(size=(2, 16, 16, 3)).astype("float32")
    expected = reference_logits(weights, torch.tensor((x - mean) / std)).numpy()
    np.testing.assert_allclose(model.predict_on_batch(x), expected, rtol=1e-3, atol=1e-3)
