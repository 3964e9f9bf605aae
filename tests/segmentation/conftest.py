import pytest

import keras_robust as kr
from keras_robust.models import registry as backbones
from keras_robust.models.convnext import ConvNeXt
from keras_robust.segmentation import registry
from keras_robust.segmentation.upernet import UPerNet

DEPTHS, CLASSES = (1, 1, 2, 1), 4


@pytest.fixture(scope="package", autouse=True)
def tiny_segmenter():
    """A UPerNet of few channels, registered for the tests of this folder."""
    registry.SEGMENTERS["tiny"] = UPerNet("tiny_backbone", channels=8, auxiliary_channels=6)
    yield
    del registry.SEGMENTERS["tiny"]


@pytest.fixture(autouse=True)
def tiny_backbone(_of_test):
    backbones.ARCHITECTURES["tiny_backbone"] = ConvNeXt(DEPTHS, (8, 8, 8, 10), conv_stem=(6, 8))


@pytest.fixture
def segmenter():
    return kr.segmentation.create("tiny", num_classes=CLASSES, layer_scale_init=0.5)
