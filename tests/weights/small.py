"""Small siblings of the models, and files of weights for them."""

import keras
import numpy as np
import torch
from safetensors.numpy import save_file

import keras_robust as kr
from keras_robust.models import registry
from keras_robust.models.convnext import ConvNeXt, ConvNeXtV2, IsotropicConvNeXt
from keras_robust.models.preact_resnet import PreActResNet
from keras_robust.models.resnet import ResNet
from keras_robust.models.swin import Swin
from keras_robust.models.vit import ViT
from keras_robust.models.xcit import XCiT

SMALL = {
    "convnext": ConvNeXt((1, 1, 1, 1), (4, 6, 8, 10)),
    "convnext_convstem": ConvNeXt((1, 1, 1, 1), (4, 6, 8, 10), conv_stem=(2, 4)),
    "isotropic": IsotropicConvNeXt(2, 4),
    "isotropic_convstem": IsotropicConvNeXt(2, 4, conv_stem=(2, 3, 4, 5)),
    "vit": ViT(8, 2, depth=2),
    "vit_convstem": ViT(8, 2, depth=2, conv_stem=(2, 3, 4, 5)),
    "vit_medium": ViT(8, 2, depth=2, layer_scale_init=1e-6, class_position=False),
    "resnet": ResNet((1, 1, 1, 1), (8, 12, 16, 20), stem_channels=4),
    "robarch": ResNet((1, 1, 1, 1), (16, 24, 32, 40), **registry.ROBARCH | {"stem_channels": 6}),
    "resnet_basic": ResNet((1, 1, 1, 1), (4, 4, 6, 8), stem_channels=4, basic=True),
    "wide_resnet": PreActResNet((1, 1, 1), (6, 8, 10), 4),
    "wide_resnet_swish": PreActResNet((1, 1, 1), (6, 8, 10), 4, **registry.DEEPMIND),
    "preact": PreActResNet((1, 1, 1, 1), (4, 6, 8, 10), 4, shortcut_activated=False, final_norm=False),
    "preact_norm": PreActResNet((1, 1, 1, 1), (4, 6, 8, 10), 4),
    "preact_swish": PreActResNet((1, 1, 1, 1), (4, 6, 8, 10), 4, shortcut_size=3, **registry.DEEPMIND),
    "convnextv2": ConvNeXtV2((1, 1, 1, 1), (4, 6, 8, 10)),
    "convnext_sparse": ConvNeXt((1, 1, 1, 1), (4, 6, 8, 10), mean_sparse=True),
    "swin_sparse": Swin(8, (2, 1, 1, 1), (2, 2, 2, 2), mean_sparse=True),
    "vit_average": ViT(8, 2, depth=2, patch_size=8, average=True),
    "swin": Swin(8, (2, 1, 1, 1), (2, 2, 2, 2)),
    "xcit": XCiT(16, 2, depth=1),
}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def create(name, **kwargs):
    return kr.models.create(name, **{"num_classes": 3, "input_size": 32, **kwargs})


def values(model):
    return {variable.path: keras.ops.convert_to_numpy(variable) for variable in model.weights}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for path in first:
        np.testing.assert_array_equal(first[path], second[path], err_msg=path)


def write(path, state_dict):
    """A file of the kind that the name tells."""
    if path.suffix == ".safetensors":
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in state_dict.items()}, path)
    else:
        torch.save({name: torch.tensor(tensor) for name, tensor in state_dict.items()}, path)
    return path
