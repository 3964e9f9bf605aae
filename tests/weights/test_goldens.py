"""Logits of PyTorch models (timm's where it has them), with weights that both sides draw from the tensors' names."""

import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import keras_robust as kr
from keras_robust import weights
from keras_robust.models import registry
from tests.golden.random_weights import images, state_dict
from tests.golden.shrunk import SHRUNK

GOLDENS = sorted((Path(__file__).parent.parent / "golden").glob("*.npz"))


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_logits_equal_those_of_pytorch(path, tmp_path, monkeypatch):
    golden = np.load(path)
    row = replace(registry.ARCHITECTURES[path.stem], **SHRUNK.get(path.stem, {}))
    monkeypatch.setitem(registry.ARCHITECTURES, path.stem, row)
    save_file(state_dict(json.loads(str(golden["shapes"]))), tmp_path / "weights.safetensors")
    model = kr.models.create(path.stem, num_classes=10)
    weights.load(model, tmp_path / "weights.safetensors")
    sizes = sorted(tuple(map(int, name.split("x"))) for name in golden.files if name != "shapes")
    if keras.backend.backend() == "jax":
        del sizes[1:]  # XLA is slow on the CPU, most of all with depthwise convolutions
    for i, (height, width) in enumerate(sizes):
        expected, x = golden[f"{height}x{width}"], images(height, width)
        # One size compiled, the others eagerly: tracing takes longer than all else here.
        logits = model.predict_on_batch(x) if i == 0 else keras.ops.convert_to_numpy(model(x))
        scale = np.abs(expected).max()
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * scale)
        # The two images are told apart: what is compared is not a constant.
        assert np.abs(expected[0] - expected[1]).max() > 0.01 * scale
