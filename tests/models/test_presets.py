"""The published checkpoints: their data, and models built from them."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.evaluation.evaluate import preprocessing_of
from keras_robust.models import registry
from keras_robust.models.convnext import IsotropicConvNeXt

# Clean and Linf accuracy from the two tables of the paper's facts, typed a second time.
PUBLISHED = {
    "resnet50_100ep": (65.88, 33.18),
    "xcit_small_110ep": (72.34, 41.78),
    "vit_small_300ep": (69.22, 44.04),
    "robarch_small_110ep": (70.58, 44.12),
    "convnext_isotropic_small_300ep": (69.04, 44.22),
    "convnext_tiny_110ep": (71.60, 44.40),
    "vit_small_convstem_300ep": (72.56, 48.08),
    "convnext_tiny_300ep": (72.40, 48.60),
    "convnext_tiny_convstem_300ep": (72.72, 49.46),
    "swin_base_90ep": (74.66, 38.30),
    "swin_base_300ep": (76.16, 56.16),
    "robarch_large_100ep": (73.44, 48.94),
    "vit_base_300ep": (76.62, 53.50),
    "vit_base_convstem_250ep": (76.30, 54.66),
    "convnext_base_300ep": (76.02, 55.82),
    "convnext_base_convstem_250ep": (75.90, 56.14),
    "convnext_isotropic_small_convstem_300ep": (70.2, 45.9),
    "vit_medium_convstem_50ep": (72.4, 48.8),
    "convnext_small_convstem_50ep": (74.1, 52.42),
    "vit_base_50ep": (73.3, 50.0),
    "convnext_base_50ep": (75.6, 54.3),
    "convnext_large_convstem_100ep": (77.0, 57.7),
}


def test_every_published_row_is_there():
    assert {name: (preset.clean, preset.linf) for name, preset in kr.models.presets().items()} == PUBLISHED


def test_the_data_are_consistent():
    for name, preset in kr.models.presets().items():
        assert name.startswith(preset.architecture)
        assert preset.architecture in kr.models.names()
        assert preset.source.startswith("https://")
        assert kr.ThreatModel(*preset.threat).eps == pytest.approx(4 / 255)
        assert math.floor(preset.resolution / preset.crop_pct) in (224, 256)
        assert preset.interpolation in ("bicubic", "bilinear")
        assert preset.linf < preset.clean < 100


def test_normalization_belongs_to_the_checkpoint():
    normalizing = {name for name, preset in kr.models.presets().items() if preset.normalization}
    assert normalizing == {
        "resnet50_100ep",
        "vit_small_convstem_300ep",
        "robarch_small_110ep",
        "robarch_large_100ep",
        "convnext_base_300ep",
        "swin_base_90ep",
        "swin_base_300ep",
    }


# RobustBench's names of preprocessings: crop over resized shorter side, and interpolation.
PREPROCESSINGS = {
    "Res256Crop224": (0.875, "bilinear"),
    "BicubicRes256Crop224": (0.875, "bicubic"),
    "Res224": (1.0, "bilinear"),
    "timm's own (crop 1.0, bicubic)": (1.0, "bicubic"),
}


def test_presets_are_as_on_robustbenchs_board():
    with (Path(__file__).parent / "robustbench.csv").open(encoding="utf-8") as file:
        board = {row["id"]: row for row in csv.DictReader(file)}
    found = {preset.robustbench: preset for preset in kr.models.presets().values() if preset.robustbench}
    assert len(found) == 11
    for name, preset in found.items():
        row = board[name]
        assert preset.architecture == row["architecture"]
        assert (preset.clean, preset.linf) == (float(row["clean"]), float(row["autoattack_linf_4_255"]))
        assert (preset.normalization is not None) == (row["normalization"] == "imagenet mean/std")
        assert (preset.crop_pct, preset.interpolation) == PREPROCESSINGS[row["preprocessing"]]


def test_licences_as_stated_at_the_sources():
    licences = {name: preset.licence for name, preset in kr.models.presets().items() if preset.licence != "none stated"}
    assert licences == {
        "robarch_small_110ep": "MIT",
        "robarch_large_100ep": "MIT",
        "convnext_base_300ep": "Apache-2.0",
        "swin_base_300ep": "Apache-2.0",
    }


def test_from_preset_builds_and_loads(monkeypatch, tmp_path):
    monkeypatch.setitem(registry.ARCHITECTURES, "convnext_isotropic_small", IsotropicConvNeXt(1, 4))
    trained = kr.models.create("convnext_isotropic_small")
    kr.weights.save(trained, tmp_path / "robust.safetensors")
    model = kr.models.from_preset("convnext_isotropic_small_300ep", weights=tmp_path / "robust.safetensors")
    x = np.random.RandomState(0).uniform(size=(2, 16, 16, 3)).astype("float32")
    np.testing.assert_array_equal(model.predict_on_batch(x), trained.predict_on_batch(x))
    assert preprocessing_of(model, None, None) == (0.875, "bicubic")


def test_from_preset_says_where_the_weights_are():
    with pytest.raises(ValueError, match=r"github\.com/nmndeep/revisiting-at \(licence: none stated\)"):
        kr.models.from_preset("convnext_tiny_convstem_300ep")
    with pytest.raises(ValueError, match=r"name must be one of .*received 'convnext_tiny'.*Did you mean"):
        kr.models.from_preset("convnext_tiny", weights="x.pt")
