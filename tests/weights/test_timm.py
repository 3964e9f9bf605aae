"""Every registered model against timm (or the published code), logits and saved weights. Needs timm and torchvision."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

import keras_robust as kr
from keras_robust.models import registry
from keras_robust.models.preact_resnet import PreActResNet
from keras_robust.weights.loading import NAMINGS
from tests.golden.make_goldens import DERIVED, logits, shapes_of, with_random_weights
from tests.golden.random_weights import images, state_dict
from tests.golden.torch_models import MODELS

pytestmark = pytest.mark.timm


# Whole, those of a billion weights would take 30 GB.
SHALLOW = {"vit_huge_patch14": {"depth": 2}, "vit_giant_patch14": {"depth": 2}}


def needs_timm():
    pytest.importorskip("timm", reason="timm is not installed, or torchvision is not beside it", exc_type=Exception)


def test_every_model_has_a_pytorch_side():
    assert set(MODELS) == set(kr.models.names())


@pytest.mark.parametrize("name", MODELS)
def test_names_and_shapes_of_the_whole_model(name):
    """Nothing is allocated."""
    needs_timm()
    with torch.device("meta"):
        expected = shapes_of(MODELS[name]())
    with keras.StatelessScope(initialize_variables=False):
        shapes = {v.path: tuple(v.shape) for v in kr.models.create(name, num_classes=10).weights}
    naming = next(n for n in NAMINGS if n.suits(shapes) and all(map(n.name, shapes)))
    # Of the arrays' shapes alone: the values of these take no room.
    arrays = {
        naming.name(path): naming.to_torch(path, np.broadcast_to(np.float32(0), shape))
        for path, shape in shapes.items()
    }
    assert {key: array.shape for key, array in naming.pack(arrays).items()} == expected


def sizes(name, row):
    if isinstance(row, PreActResNet):
        return ((32, 32), (40, 48))
    if name.endswith(("_mimir", "swin_large_meansparse")):  # another size is another model there
        return ((224, 224),)
    return ((224, 224), (252, 280) if row.multiple_of == 14 else (256, 288))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_equal_logits_and_a_way_back(name, tmp_path, monkeypatch):
    needs_timm()
    smaller = SHALLOW.get(name, {})
    row = replace(registry.ARCHITECTURES[name], **smaller)
    monkeypatch.setitem(registry.ARCHITECTURES, name, row)
    torch_model = MODELS[name](**smaller)
    weights = state_dict(shapes_of(torch_model), seed=1)
    save_file(weights, tmp_path / "weights.safetensors")
    model = kr.models.create(name, num_classes=10)
    kr.weights.load(model, tmp_path / "weights.safetensors")

    kr.weights.save(model, tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    derived = {key: tensor for key, tensor in torch_model.state_dict().items() if key.endswith(DERIVED)}
    torch_model.load_state_dict(back | derived)
    for key, tensor in weights.items():
        assert torch.equal(back[key], torch.tensor(tensor)), key

    with_random_weights(torch_model, seed=1)
    for size in sizes(name, row):
        x = images(*size, seed=2)
        expected = logits(torch_model, x)
        np.testing.assert_allclose(
            model.predict_on_batch(x), expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=str(size)
        )
