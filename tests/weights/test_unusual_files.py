"""Files as they are met in the wild: nested, broken, without PyTorch to read them. After an error nothing changed."""

import sys

import keras
import numpy as np
import pytest
import torch

import keras_robust as kr

from . import tensors
from .small import IMAGENET, assert_same, create, values, write

pytestmark = [
    pytest.mark.usefixtures("small_models"),
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the same on all, but PyTorch is hidden"),
]

CLIPPED = (".pt", ".safetensors", ".keras", ".weights.h5")


def isotropic():
    return {name: torch.tensor(tensor) for name, tensor in tensors.isotropic().items()}


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("wrong", [None, ((0.5, 0.5, 0.5), IMAGENET[1])])
def test_keras_files_know_their_normalization(suffix, wrong, tmp_path):
    model, path = create("isotropic", normalization=IMAGENET), tmp_path / f"w{suffix}"
    model.save(path) if suffix == ".keras" else model.save_weights(path)
    other = create("isotropic", normalization=IMAGENET)
    kr.weights.load(other, path)
    assert_same(values(other), values(model))

    other = create("isotropic", normalization=wrong)
    before = values(other)
    with pytest.raises(ValueError, match=r"create the model with normalization=\(\(0.485, 0.456, 0.406\), "):
        kr.weights.load(other, path)
    if wrong is None:  # and the reverse
        other.save(path) if suffix == ".keras" else other.save_weights(path)
        with pytest.raises(ValueError, match="is for raw pixels: create the model with normalization=None"):
            kr.weights.load(model, path)
    assert_same(values(other), before)


@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Keras', of the layer that the file lacks
def test_keras_itself_refuses_weights_of_another_normalization(tmp_path):
    create("isotropic").save_weights(tmp_path / "raw.weights.h5")
    model = create("isotropic", normalization=IMAGENET)
    with pytest.raises(ValueError, match="the model normalises with mean="):
        model.load_weights(tmp_path / "raw.weights.h5")
    model.save_weights(tmp_path / "own.weights.h5")
    model.load_weights(tmp_path / "own.weights.h5")


@pytest.mark.parametrize(
    ("wrap", "entry"),
    [
        (lambda w: {"checkpoint": {"state_dict": w, "epoch": 3}}, None),
        (
            lambda w: {"state_dict": w, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}},
            None,
        ),
        (lambda w: {"ema": {"n_averaged": torch.tensor(7), **{f"module.{k}": v for k, v in w.items()}}}, None),
        (lambda w: {"run": {"net": w, "ema": {k: 2 * v for k, v in w.items()}}}, "run.net"),
    ],
    ids=["nested", "with an optimizer", "averaged model", "nested, two of them"],
)
def test_containers(wrap, entry, tmp_path):
    torch.save(wrap(isotropic()), tmp_path / "w.pth.tar")
    model = create("isotropic")
    kr.weights.load(model, tmp_path / "w.pth.tar", entry=entry)
    np.testing.assert_array_equal(values(model)["norm/gamma"], tensors.isotropic()["norm.weight"])


@pytest.mark.parametrize("suffix", CLIPPED)
@pytest.mark.parametrize("part", [0.0, 0.5, 0.98])
def test_truncated_files(suffix, part, tmp_path):
    model, path = create("isotropic"), tmp_path / f"w{suffix}"
    if suffix in (".pt", ".safetensors"):
        write(path, tensors.isotropic())
    else:
        model.save(path) if suffix == ".keras" else model.save_weights(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    before = values(model)
    with pytest.raises(ValueError, match=path.name):
        kr.weights.load(model, path)
    assert_same(values(model), before)


@pytest.mark.parametrize("suffix", CLIPPED)
def test_values_that_are_not_finite(suffix, tmp_path):
    path, poisoned = tmp_path / f"w{suffix}", create("isotropic")
    bias = np.array([np.nan, np.inf, 0.0, 1.0], "float32")
    if suffix in (".pt", ".safetensors"):
        write(path, {**tensors.isotropic(), "norm.bias": bias})
    else:
        poisoned.get_layer("norm").beta.assign(bias)
        poisoned.save(path) if suffix == ".keras" else poisoned.save_weights(path)
    model = create("isotropic")
    before = values(model)
    with pytest.raises(ValueError, match=r"1 not finite: norm[./]b"):
        kr.weights.load(model, path)
    assert_same(values(model), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.bias": torch.zeros(4).to_sparse()}, r"sparse or quantised tensors: norm\.bias"),
        ({"norm.bias": torch.zeros(4, dtype=torch.bool)}, r"misshapen: norm\.bias: file bool \(4,\)"),
        ({"norm.bias": torch.zeros(4, dtype=torch.complex64)}, r"misshapen: norm\.bias: file complex64"),
        ({"norm.bias": torch.tensor(1.0)}, r"misshapen: norm\.bias: file float32 \(\), model \(4,\)"),
        ({"normalize.mean": torch.zeros(4), "normalize.std": torch.ones(4)}, "normalisation of 4 channels"),
    ],
)
def test_tensors_of_another_kind(change, message, tmp_path):
    torch.save({**isotropic(), **change}, tmp_path / "w.pt")
    model = create("isotropic")
    before = values(model)
    with pytest.raises(ValueError, match=message):
        kr.weights.load(model, tmp_path / "w.pt")
    assert_same(values(model), before)


def test_without_pytorch(tmp_path, monkeypatch):
    for suffix in (".safetensors", ".pt"):
        write(tmp_path / f"w{suffix}", tensors.isotropic())
    monkeypatch.setitem(sys.modules, "torch", None)
    model = create("isotropic")
    kr.weights.load(model, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(values(model)["norm/gamma"], tensors.isotropic()["norm.weight"])
    with pytest.raises(ImportError, match=r"needs PyTorch .* \.safetensors files do not"):
        kr.weights.load(model, tmp_path / "w.pt")


def test_a_model_saved_within_its_trainer(tmp_path):
    model = create("isotropic")
    kr.AdversarialModel(model, kr.attacks.FGSM(kr.ThreatModel("Linf", 0.01))).save(tmp_path / "trainer.keras")
    other = create("isotropic")
    kr.weights.load(other, tmp_path / "trainer.keras")
    assert_same(values(other), values(model))
