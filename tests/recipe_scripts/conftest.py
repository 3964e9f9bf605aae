import pytest

from keras_robust.models import registry as backbones
from keras_robust.models.convnext import ConvNeXt
from keras_robust.segmentation import registry
from keras_robust.segmentation.upernet import UPerNet


@pytest.fixture
def small_segmenter(_of_test, monkeypatch):
    """The segmentation model of the scripts' smallest runs with few blocks and channels, under its name."""
    backbone = "convnext_atto_convstem"
    monkeypatch.setitem(backbones.ARCHITECTURES, backbone, ConvNeXt((1, 1, 1, 1), (8, 8, 8, 8), conv_stem=(4, 8)))
    monkeypatch.setitem(registry.SEGMENTERS, f"upernet_{backbone}", UPerNet(backbone, 8, 6))
