"""Segmentation models beside plain PyTorch, their parameters, and the files of weights they take."""

import keras
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import keras_robust as kr
from tests.models.torch_reference import set_random_weights

from . import reference
from .conftest import CLASSES, DEPTHS


def images(height, width, count=2):
    return np.random.default_rng(height + width).random((count, height, width, 3)).astype("float32")


@pytest.fixture
def saved(segmenter, tmp_path):
    """A model with both heads and random weights, and the file that holds them."""
    model = kr.segmentation.with_auxiliary_head(segmenter)
    set_random_weights(model)
    kr.weights.save(model, tmp_path / "both.safetensors")
    return model, tmp_path / "both.safetensors"


@pytest.mark.parametrize("size", [(64, 64), (47, 90)])
def test_logits_are_those_of_plain_pytorch(saved, size):
    """Which also checks the names and layouts that weights are saved with."""
    model, path = saved
    state = {name: torch.from_numpy(tensor) for name, tensor in load_file(path).items()}
    x = images(*size)
    expected = reference.upernet(state, torch.from_numpy(x.transpose(0, 3, 1, 2)), DEPTHS)
    for ours, theirs in zip(model(x), expected):
        ours, theirs = keras.ops.convert_to_numpy(ours), theirs.numpy().transpose(0, 2, 3, 1)
        assert ours.shape == (2, *size, CLASSES)
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.once
@pytest.mark.parametrize(
    ("size", "stem", "count"),
    # With 21 classes; the publication says 60.2 and 81.8 million for a ConvStem.
    [("tiny", "_convstem", 60_181_610), ("small", "_convstem", 81_816_170), ("tiny", "", None), ("base", "", None)],
)
def test_parameters(size, stem, count):
    name = f"upernet_convnext_{size}{stem}"
    model = kr.segmentation.with_auxiliary_head(kr.segmentation.create(name, num_classes=21))
    classifier = kr.models.create(f"convnext_{size}{stem}", num_classes=1000)
    dims = {"tiny": (96, 192, 384, 768), "small": (96, 192, 384, 768), "base": (128, 256, 512, 1024)}[size]
    c, a, top = 512, 256, dims[-1]
    backbone = kr.models.parameters(classifier) - (top + 1) * 1000 - 2 * top
    pooling = 4 * (top * c + 2 * c) + 9 * (top + 4 * c) * c + 2 * c
    pyramid = sum(dim * c + 2 * c for dim in dims[:-1]) + 3 * (9 * c * c + 2 * c) + 9 * 4 * c * c + 2 * c
    auxiliary = 9 * dims[2] * a + 2 * a + (a + 1) * 21
    expected = backbone + 2 * sum(dims) + pooling + pyramid + (c + 1) * 21 + auxiliary
    assert kr.models.parameters(model) == expected == (count or expected)


@pytest.mark.once
def test_a_saved_model_is_the_same_at_any_size(segmenter, tmp_path):
    set_random_weights(segmenter)
    segmenter.save(tmp_path / "net.keras")
    again = keras.saving.load_model(tmp_path / "net.keras")
    for size in ((32, 32), (40, 65)):
        x = images(*size, count=1)
        np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(net(x)) for net in (segmenter, again)))
    assert kr.segmentation.with_auxiliary_head(again).outputs[1].shape == (None, None, None, CLASSES)


@pytest.mark.once
def test_published_names_in_and_out(saved, tmp_path):
    model, path = saved
    state = load_file(path)
    theirs = {
        "backbone.downsample_layers.0.stem.3.weight",
        "backbone.stages.2.1.pwconv1.bias",
        "backbone.norm3.weight",
        "decode_head.psp_modules.3.1.batch_norm.running_var",
        "decode_head.fpn_convs.2.conv.weight",
        "auxiliary_head.classifier.bias",
    }
    assert theirs <= set(state)
    other = kr.segmentation.create("tiny", num_classes=CLASSES, layer_scale_init=0.5)
    counters = {name.replace("running_var", "num_batches_tracked"): np.array(7) for name in state if "var" in name}
    save_file({**state, **counters}, tmp_path / "published.safetensors")
    kr.weights.load(other, tmp_path / "published.safetensors", stated=True)  # without an auxiliary head
    x = images(40, 32, count=1)
    both = model(x)[0]
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(logits) for logits in (both, other(x))))
    mm = {name.replace("batch_norm", "bn").replace("head.classifier", "head.conv_seg"): t for name, t in state.items()}
    # As PyTorch's training code saves them: under a key, beside what the run was, with the prefix of its wrapper.
    tensors = {f"module.{name}": torch.from_numpy(np.array(tensor)) for name, tensor in mm.items()}
    torch.save({"meta": {"epoch": 50}, "state_dict": tensors}, tmp_path / "mm.pth")
    set_random_weights(other)
    kr.weights.load(kr.segmentation.with_auxiliary_head(other), tmp_path / "mm.pth", stated=True)
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(logits) for logits in (both, other(x))))
    del state["decode_head.classifier.bias"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(ValueError, match=r"1 missing: decode_head\.classifier\.bias"):
        kr.weights.load(other, tmp_path / "less.safetensors", stated=True)


@pytest.mark.once
@pytest.mark.parametrize("source", ["model", "keras", "safetensors"])
def test_backbone_of_a_classifier(segmenter, source, tmp_path):
    classifier = kr.models.create("tiny_backbone", num_classes=7, layer_scale_init=0.5)
    set_random_weights(classifier)
    given = classifier
    if source == "keras":
        given = tmp_path / "classifier.keras"
        classifier.save(given)
    elif source == "safetensors":
        given = tmp_path / "classifier.safetensors"
        kr.weights.save(classifier, given)
    heads = {w.path: np.array(keras.ops.convert_to_numpy(w)) for w in segmenter.weights if "_norm_" in w.path}
    kr.segmentation.load_backbone(segmenter, given)
    x = images(64, 32, count=1)
    maps = kr.models.features(classifier)(x)
    levels = keras.Model(segmenter.input, [segmenter.get_layer(f"level_norm_{i}").input for i in range(4)])(x)
    for ours, theirs in zip(levels, maps):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs))
    for weight in segmenter.weights:
        if weight.path in heads and weight.path.startswith(("lateral", "level", "fpn")):
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), heads[weight.path])


def test_refused(segmenter):
    with pytest.raises(ValueError, match=r"Did you mean 'upernet_convnext_tiny'"):
        kr.segmentation.create("upernet_convnext_tny")
    with pytest.raises(ValueError, match="num_classes must be an integer >= 2; received 1"):
        kr.segmentation.create("tiny", num_classes=1)
    with pytest.raises(ValueError, match="source must be a tiny_backbone, the backbone of tiny"):
        kr.segmentation.load_backbone(segmenter, kr.models.create("convnext_atto", num_classes=2))
    normalized = kr.models.create("tiny_backbone", num_classes=2, normalization=((0.5,) * 3, (0.2,) * 3))
    with pytest.raises(ValueError, match="source must normalise its pixels as the model does, by None"):
        kr.segmentation.load_backbone(segmenter, normalized)
    with pytest.raises(ValueError, match=r"model must be from keras_robust\.segmentation\.create"):
        kr.segmentation.with_auxiliary_head(normalized)
