"""Every registered model against timm (or the published code), logits and saved weights. Needs timm and torchvision."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

import keras_robust as kr
from tests.golden.make_goldens import DERIVED, logits, shapes_of, with_random_weights
from tests.golden.random_weights import images, state_dict
from tests.golden.torch_models import MODELS

pytestmark = pytest.mark.timm


def test_every_model_has_a_pytorch_side():
    assert set(MODELS) == set(kr.models.names())


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_equal_logits_and_a_way_back(name, tmp_path):
    pytest.importorskip("timm", reason="timm is not installed, or torchvision is not beside it", exc_type=Exception)
    torch_model = MODELS[name]()
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
    for size in ((224, 224), (256, 288)):
        x = images(*size, seed=2)
        expected = logits(torch_model, x)
        np.testing.assert_allclose(
            model.predict_on_batch(x), expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=str(size)
        )
