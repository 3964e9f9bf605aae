"""tools/convert.py, as a command."""

import hashlib

import numpy as np
import pytest
import torch

import keras_robust as kr
from keras_robust.models import registry
from keras_robust.models.convnext import IsotropicConvNeXt
from tests import scripts
from tests.weights import tensors

pytestmark = pytest.mark.once

SIZE = ["--input-size", "16"]


@pytest.fixture
def script(monkeypatch):
    name = "convnext_isotropic_small"
    monkeypatch.setitem(registry.ARCHITECTURES, name, IsotropicConvNeXt(2, 4))
    monkeypatch.setitem(registry.ARCHITECTURES, f"{name}_convstem", IsotropicConvNeXt(2, 4, conv_stem=(2, 3, 4, 5)))
    return scripts.load("tools/convert.py")


@pytest.fixture
def convert(script):
    return lambda *arguments: script.main([str(argument) for argument in arguments])


@pytest.fixture
def checkpoint(tmp_path):
    state_dict = {f"module.{name}": torch.tensor(tensor) for name, tensor in tensors.isotropic().items()}
    torch.save(state_dict, tmp_path / "robust.pt")
    return tmp_path / "robust.pt"


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".safetensors"])
def test_converts_and_verifies(suffix, convert, checkpoint, tmp_path, capsys):
    out = tmp_path / f"robust{suffix}"
    name = ["--model", "convnext_isotropic_small", "--num-classes", 3]
    assert convert(*name, "--weights", checkpoint, "--out", out, *SIZE) == 0
    printed = capsys.readouterr().out
    assert "parameters" in printed
    assert "verified: the same logits" in printed
    assert f"sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["robust.pt", out.name])
    model = kr.models.create("convnext_isotropic_small", num_classes=3)
    kr.weights.load(model, out)
    np.testing.assert_array_equal(model.get_layer("norm").gamma, tensors.isotropic()["norm.weight"])


def test_what_does_not_reload_alike_is_not_left_behind(script, convert, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(np, "allclose", lambda first, second, rtol, atol: atol < 0)
    name = ["--model", "convnext_isotropic_small", "--num-classes", 3]
    assert convert(*name, "--weights", checkpoint, "--out", tmp_path / "w.keras", *SIZE) == 2
    assert "w.keras is not written: what was reloads with logits that differ" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["robust.pt"]


def test_skips_head_and_stem(convert, checkpoint, tmp_path):
    out = tmp_path / "start.keras"
    name = ["--model", "convnext_isotropic_small_convstem", "--num-classes", 5]
    skips = ["--head", "skip", "--stem", "skip"]
    assert convert(*name, "--weights", checkpoint, "--out", out, *skips, *SIZE) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "convnext_isotropic_small"], 'head="skip"'),
        (["--model", "convnext_isotropic_smal"], "--model must be one of"),
        (["--preset", "convnext_isotropic_small"], "--preset must be one of"),
        (["--model", "convnext_isotropic_small", "--num-classes", "3", "--entry", "ema"], "entry must be one of"),
    ],
)
def test_bad_input_is_one_line_and_code_2(arguments, message, convert, checkpoint, tmp_path, capsys):
    assert convert(*arguments, "--weights", checkpoint, "--out", tmp_path / "w.keras") == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "w.keras").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "vit_tiny", "--out", "w.h5"], "--out must end in"),
        (["--model", "vit_tiny", "--out", "none/w.keras"], "there is no folder"),
        (["--model", "vit_tiny", "--out", "w.keras", "--mean", "0", "0", "0"], "go together"),
        (["--out", "w.keras"], "--model --preset is required"),
    ],
)
def test_bad_usage(arguments, message, convert, capsys):
    with pytest.raises(SystemExit, match="2"):
        convert("--weights", "w.pt", *arguments)
    assert message in capsys.readouterr().err


def test_weights_of_an_architecture_are_needed(convert, capsys):
    with pytest.raises(SystemExit, match="2"):
        convert("--model", "vit_tiny", "--out", "w.keras")
    assert "--weights is required with --model" in capsys.readouterr().err


def test_weights_of_a_preset_are_found_by_its_name(convert, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_ROBUST_WEIGHTS", str(tmp_path / "mirror"))
    (tmp_path / "mirror").mkdir()
    state_dict = torch.load(checkpoint)
    for name in ("module.head.weight", "module.head.bias"):
        state_dict[name] = torch.zeros(1000, *state_dict[name].shape[1:])
    torch.save(state_dict, tmp_path / "mirror" / "convnext_isotropic_small_300ep.pt")
    assert convert("--preset", "convnext_isotropic_small_300ep", "--out", tmp_path / "w.keras", *SIZE) == 0
    assert f"read {tmp_path}/mirror/convnext_isotropic_small_300ep.pt" in capsys.readouterr().out
