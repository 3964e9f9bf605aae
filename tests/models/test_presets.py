"""The published checkpoints: their data, and models built from them, by name."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import keras_robust as kr
from keras_robust.evaluation.evaluate import preprocessing_of
from keras_robust.models import registry
from keras_robust.models.convnext import ConvNeXt, IsotropicConvNeXt
from tests.weights.servers import QUOTA, Answer, drive, serving, serving_hub

pytestmark = pytest.mark.once

# Clean and Linf accuracy from the tables of the paper's facts and of the authors' pages, typed a second time.
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
    "robarch_medium_peng2023": (71.88, 46.26),
    "resnet50_liu2023": (67.0, 34.1),
    "resnet101_liu2023": (71.0, 42.2),
    "resnet152_liu2023": (72.4, 46.7),
    "wide_resnet50_2_liu2023": (70.5, 39.3),
    "convnext_small_liu2023": (77.3, 54.3),
    "vit_small_liu2023": (70.7, 43.7),
    "vit_base_liu2023": (74.7, 49.7),
    "swin_small_liu2023": (76.6, 55.6),
    "resnet50_gelu_debenedetti2022": (66.54, 35.12),
    "xcit_small_debenedetti2022_eps8": (63.46, 25.00),
    "xcit_medium_debenedetti2022_eps8": (67.80, 26.58),
    "xcit_large_debenedetti2022_eps8": (69.24, 28.74),
    "convnext_tiny_debenedetti2022_eps8": (65.96, 27.98),
    "resnet50_gelu_debenedetti2022_eps8": (58.08, 17.15),
    "vit_huge_patch14_wang2024": (83.9, 69.8),
    "vit_giant_patch14_wang2024": (83.9, 71.0),
}
BOARD = "gdrive:1-FjtOF6LJ3-bf4VezsmWwncCxYSx-USP"


def test_every_published_row_is_there():
    found = {name: (preset.clean, preset.linf) for name, preset in kr.models.presets().items()}
    assert {name: found[name] for name in PUBLISHED} == PUBLISHED
    assert {name for name, preset in kr.models.presets().items() if not preset.robustbench} <= set(PUBLISHED)


def test_the_data_are_consistent():
    for name, preset in kr.models.presets().items():
        assert not name.startswith(tuple(f"{each}x" for each in kr.models.names()))
        assert name not in kr.models.names()  # --model could mean either
        assert preset.source.startswith("https://")
        assert kr.ThreatModel(*preset.threat).eps == pytest.approx((8 if name.endswith("eps8") else 4) / 255)
        how = preset.preprocessing
        assert math.floor(how.resolution / how.crop_pct) in (224, 256, 288, 373)
        assert preset.linf < preset.clean < 100
        assert preset.n_examples in (1000, 5000)
        assert preset.file is None or preset.file.startswith(("gdrive:", "hf://", "https://"))
    # Of the architectures that there are not yet, the presets name at least no other ones.
    missing = {preset.architecture for preset in kr.models.presets().values()} - set(kr.models.names())
    assert missing <= MISSING
    assert not MISSING & set(kr.models.names())


# What rows of the table wait for.
MISSING = {"mixednuts"}
# RobustBench's names of preprocessings: resolution, shorter side of the resize, interpolation.
PREPROCESSINGS = {
    "Res256Crop224": (224, 256, "bilinear"),
    "BicubicRes256Crop224": (224, 256, "bicubic"),
    "Res224": (224, 224, "bilinear"),
    "Crop288": (288, 288, "none"),
    "timm's own (crop 1.0, bicubic)": (224, 224, "bicubic"),
}
# What the facts call an architecture in words.
IN_WORDS = {
    "mixture of ConvNeXtV2-L and swin_large": "mixednuts",
    "convnext_large + MeanSparse layers": "convnext_large_meansparse",
    "swin_large + MeanSparse layers": "swin_large_meansparse",
    "swin_base (LayerNorm epsilon 1e-6)": "swin_base_mimir",
    "swin_large (window 14)": "swin_large_mimir",
}


def test_presets_are_as_on_robustbenchs_board():
    with (Path(__file__).parent / "robustbench.csv").open(encoding="utf-8") as file:
        board = {row["id"]: row for row in csv.DictReader(file)}
    found = {preset.robustbench: preset for preset in kr.models.presets().values() if preset.robustbench}
    assert found.keys() == board.keys()
    assert len(found) == 30
    for name, preset in found.items():
        row = board[name]
        assert preset.architecture == IN_WORDS.get(row["architecture"], row["architecture"])
        assert (preset.clean, preset.linf) == (float(row["clean"]), float(row["autoattack_linf_4_255"]))
        assert preset.external == (float(row["external"]) if row["external"] else None)
        if row["normalization"] != "see source":
            assert (preset.normalization is not None) == (row["normalization"] == "imagenet mean/std")
        how = preset.preprocessing
        expected = PREPROCESSINGS[row["preprocessing"]]
        assert (how.resolution, math.floor(how.resolution / how.crop_pct), how.interpolation) == expected
        if row["google_drive_id"]:
            assert preset.file == f"gdrive:{row['google_drive_id']}"
        assert kr.models.preset(name) is preset
        assert (preset.n_examples, preset.threat) == (5000, ("Linf", 4 / 255))


def test_licences():
    """As stated at the sources; by RobustBench for what it hosts without another being known."""
    licences = {}
    for name, preset in kr.models.presets().items():
        licences.setdefault(preset.licence, set()).add(name)
        if preset.licence == "MIT (RobustBench)":
            assert preset.robustbench
    assert licences["MIT"] == {"robarch_small_110ep", "robarch_medium_peng2023", "robarch_large_100ep"}
    assert all("liu2023" in name or name.endswith("_300ep") or "wang2024" in name for name in licences["Apache-2.0"])
    assert licences["BSD-3-Clause"] == {"resnet50_standard"}
    assert licences.keys() == {"MIT", "MIT (RobustBench)", "Apache-2.0", "BSD-3-Clause", "none stated"}


def test_a_net_trained_clean_has_no_threat_model():
    assert kr.models.preset("Standard_R50").training_threat is None
    assert kr.models.preset("Salman2020Do_R50").training_threat == ("Linf", 4 / 255)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A small net of the name of two published ones, its file, and an empty cache."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(registry.ARCHITECTURES, "convnext_tiny_convstem", IsotropicConvNeXt(1, 4, (2, 3, 4, 5)))
    monkeypatch.setitem(registry.ARCHITECTURES, "robarch_small", IsotropicConvNeXt(1, 4))
    model = kr.models.create("convnext_tiny_convstem")
    kr.weights.save(model, tmp_path / "w.safetensors")
    return model


def as_torch(path):
    """The content of a .safetensors file as a .pt file, and that file's content."""
    from safetensors.torch import load_file

    torch.save({f"module.{name}": tensor for name, tensor in load_file(path).items()}, path.with_suffix(".pt"))
    return path.with_suffix(".pt").read_bytes()


X = np.random.RandomState(0).uniform(size=(2, 16, 16, 3)).astype("float32")


def assert_same(model, other):
    np.testing.assert_array_equal(model.predict_on_batch(X), other.predict_on_batch(X))


@pytest.mark.parametrize("name", ["convnext_tiny_convstem_300ep", "Singh2023Revisiting_ConvNeXt-T-ConvStem"])
def test_from_preset_with_a_file(name, tiny, tmp_path):
    model = kr.models.from_preset(name, weights=tmp_path / "w.safetensors")
    assert_same(model, tiny)
    assert preprocessing_of(model, None, None) == (0.875, "bicubic")


def test_figures_that_others_have_undercut_are_a_warning(tmp_path, monkeypatch):
    undercut = {row.robustbench: row.lowest for row in kr.models.presets().values() if row.caution}
    lower = {"Bai2024MixedNUTS": 58.50, "Amini2024MeanSparse_ConvNeXt-L": 58.22, "Amini2024MeanSparse_Swin-L": 58.92}
    assert undercut == lower
    monkeypatch.setitem(registry.ARCHITECTURES, "swin_large_meansparse", IsotropicConvNeXt(1, 4, (2, 3, 4, 5)))
    preset = kr.models.preset("Amini2024MeanSparse_Swin-L")
    kr.weights.save(
        kr.models.create(preset.architecture, normalization=preset.normalization), tmp_path / "w.safetensors"
    )
    expected = r"62\.12 % by AutoAttack at Linf 4/255, 58\.92 % by a stronger attack of others"
    with pytest.warns(UserWarning, match=expected):
        kr.models.from_preset("Amini2024MeanSparse_Swin-L", weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "file", ["convnext_tiny_convstem_300ep.pt", "imagenet/Linf/Singh2023Revisiting_ConvNeXt-T-ConvStem.pt"]
)
def test_from_a_mirror(file, tiny, tmp_path, monkeypatch):
    """Also where it is a folder of models that RobustBench has downloaded."""
    mirror = tmp_path / "mirror"
    (mirror / file).parent.mkdir(parents=True)
    (mirror / file).write_bytes(as_torch(tmp_path / "w.safetensors"))
    monkeypatch.setenv("KERAS_ROBUST_WEIGHTS", str(mirror))
    assert_same(kr.models.from_preset("Singh2023Revisiting_ConvNeXt-T-ConvStem"), tiny)
    monkeypatch.setenv("KERAS_ROBUST_WEIGHTS", str(tmp_path / "absent"))
    with pytest.raises(ValueError, match="KERAS_ROBUST_WEIGHTS must be a folder of weights; received"):
        kr.models.from_preset("Singh2023Revisiting_ConvNeXt-T-ConvStem")


class TestDownloads:
    @pytest.fixture(autouse=True)
    def _libraries(self, monkeypatch):
        pytest.importorskip("gdown")
        pytest.importorskip("huggingface_hub")
        monkeypatch.setattr(kr.weights.fetching, "RETRIES", 0)

    def test_from_google_drive(self, tiny, tmp_path, monkeypatch, capsys):
        content = as_torch(tmp_path / "w.safetensors")
        with drive(monkeypatch, tmp_path) as server:
            server.answer = lambda host, path, query: Answer(
                content, headers={"Content-Type": "application/octet-stream", "Content-Disposition": "attachment"}
            )
            model = kr.models.from_preset("Singh2023Revisiting_ConvNeXt-T-ConvStem")
        said = capsys.readouterr().err
        # Before anything is asked of a server.
        first = (
            f"convnext_tiny_convstem_300ep: 0 MB or more from {BOARD}; licence: MIT (RobustBench); source: https://g"
        )
        assert said.startswith(first)
        assert_same(model, tiny)
        assert_same(kr.models.from_preset("convnext_tiny_convstem_300ep"), tiny)  # with no server any more
        assert capsys.readouterr().err == ""

    def test_the_quota_is_told_with_what_to_do(self, tiny, tmp_path, monkeypatch):
        with drive(monkeypatch, tmp_path) as server:
            server.answer = lambda host, path, query: Answer(QUOTA.encode(), headers={"Content-Type": "text/html"})
            with pytest.raises(ConnectionError) as caught:
                kr.models.from_preset("Singh2023Revisiting_ConvNeXt-T-ConvStem", verbose=False)
        message = str(caught.value)
        assert "Too many users have viewed or downloaded this file recently" in message
        assert f"In a browser: https://drive.google.com/file/d/{BOARD.removeprefix('gdrive:')}/view" in message
        assert "or put it as convnext_tiny_convstem_300ep.pt into the folder that KERAS_ROBUST_WEIGHTS names" in message

    def test_from_the_hub(self, tiny, tmp_path, monkeypatch):
        model = kr.models.create("robarch_small")
        kr.weights.save(model, tmp_path / "r.safetensors")
        net = kr.models.create("robarch_small", normalization=kr.models.preset("robarch_small_110ep").normalization)
        net.set_weights(model.get_weights())
        with serving_hub(monkeypatch) as hub:
            hub.files["poloclub/RobArch/pretrained/robarch_s.pt"] = as_torch(tmp_path / "r.safetensors")
            assert_same(kr.models.from_preset("robarch_small_110ep", verbose=False), net)

    def test_a_file_of_another_size_is_not_downloaded(self, tiny, monkeypatch):
        monkeypatch.setattr(kr.models.pretrained, "FREE_BYTES", 0)
        with serving() as server:
            server.answers["/w.pt"] = Answer(bytes(3_000_000))
            row = kr.models.preset("convnext_tiny_convstem_300ep")
            monkeypatch.setitem(
                kr.models.presets.__globals__["PRESETS"],
                "convnext_tiny_convstem_300ep",
                type(row)(**{**vars(row), "file": f"{server.url}/w.pt"}),
            )
            with pytest.raises(ValueError, match="has 3,000,000 bytes or more; at most"):
                kr.models.from_preset("convnext_tiny_convstem_300ep", verbose=False)


def test_of_several_sets_of_weights_the_boards(tiny, tmp_path):
    """RobustBench evaluates "state_dict", whatever else a file holds; of other files the user chooses."""
    as_torch(tmp_path / "w.safetensors")
    state_dict = torch.load(tmp_path / "w.pt")
    averages = {name: tensor + 1 for name, tensor in state_dict.items()}
    torch.save({"state_dict_ema": averages, "state_dict": state_dict}, tmp_path / "two.pt")
    for entry in (None, "state_dict"):
        assert_same(kr.models.from_preset("convnext_tiny_convstem_300ep", tmp_path / "two.pt", entry), tiny)
    averaged = kr.models.from_preset("convnext_tiny_convstem_300ep", tmp_path / "two.pt", "state_dict_ema")
    np.testing.assert_allclose(averaged.get_weights()[0], tiny.get_weights()[0] + 1, rtol=1e-6)
    with pytest.raises(
        ValueError, match=r"several sets of weights: choose one by entry=, accepted are \['state_dict_ema'"
    ):
        kr.models.from_preset("robarch_small_110ep", tmp_path / "two.pt")


def test_what_cannot_be_downloaded_says_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"from https://github\.com/nmndeep/revisiting-at \(licence: none stated\) and"
    ):
        kr.models.from_preset("convnext_tiny_300ep")
    with pytest.raises(ValueError, match=r"name must be one of .*received 'convnext_tiny'.*Did you mean"):
        kr.models.from_preset("convnext_tiny", weights="x.pt")
    with pytest.raises(ValueError, match="Did you mean 'Singh2023Revisiting_ViT-S-ConvStem'"):
        kr.models.from_preset("Singh2023Revisiting_ViT-S-ConvStm")


def test_an_architecture_that_there_is_not_yet(monkeypatch):
    monkeypatch.delitem(registry.ARCHITECTURES, "convnext_tiny_convstem")
    with pytest.raises(ValueError, match="is a convnext_tiny_convstem, which this version does not have"):
        kr.models.from_preset("Singh2023Revisiting_ConvNeXt-T-ConvStem")


def test_one_error_tells_all_of_a_file_that_is_another_one(tiny, tmp_path, monkeypatch):
    """Names that are missing and over, the normalisation, and what it is nearest to."""
    only(monkeypatch)
    monkeypatch.setitem(
        registry.ARCHITECTURES, "convnext_tiny_convstem", ConvNeXt((1, 1, 1, 1), (4, 6, 8, 10), conv_stem=(2, 4))
    )
    kr.models.register("small_convnext", ConvNeXt((1, 1, 1, 1), (4, 6, 8, 10)))
    kr.models.register("its_twin", ConvNeXt((1, 1, 1, 1), (4, 6, 8, 10)))
    kr.models.register("larger_convnext", ConvNeXt((1, 1, 2, 1), (4, 6, 8, 10)))
    other = kr.models.create("small_convnext", num_classes=10, normalization=((0.5,) * 3, (0.5,) * 3))
    kr.weights.save(other, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is not the file of") as caught:
        kr.models.from_preset("convnext_tiny_convstem_300ep", weights=tmp_path / "other.safetensors")
    message = str(caught.value)
    for part in (
        "is not the file of convnext_tiny_convstem_300ep, a convnext_tiny_convstem on raw pixels: ",
        "8 missing: stem.stem.0.",
        "4 surplus: stem.0.bias, stem.0.weight, stem.1.bias, stem.1.weight; ",
        "2 misshapen: head.fc.",
        "it carries a normalisation",
        "Nearest architecture: small_convnext or its_twin, which has ",
    ):
        assert part in message, message


def only(monkeypatch, *names):
    """As if there were no other architectures: to build all of them takes seconds."""
    for name in kr.models.names():
        if name not in ("convnext_tiny_convstem", *names):
            monkeypatch.delitem(registry.ARCHITECTURES, name)


def test_a_file_that_is_near_to_nothing(tiny, tmp_path, monkeypatch):
    only(monkeypatch)
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"its tensors are called layer\.weight.* It is near to no architecture here"):
        kr.models.from_preset("convnext_tiny_convstem_300ep", weights=tmp_path / "w.pt")


@pytest.mark.parametrize(("name", "suffix"), [("vit_tiny", ".keras"), ("convnext_atto", ".safetensors")])
def test_nearest_architecture(name, suffix, tmp_path, monkeypatch):
    """Of files with other heads, in PyTorch's and in Keras' names."""
    from keras_robust.models.nearest import nearest
    from keras_robust.weights.reading import read

    only(monkeypatch, "vit_tiny", "vit_tiny_convstem", "convnext_atto", "convnext_atto_convstem")
    model = kr.models.create(name, num_classes=7)
    if suffix == ".keras":
        shapes = {variable.path: tuple(variable.shape) for variable in model.weights}
    else:
        kr.weights.save(model, tmp_path / "w.safetensors")
        shapes = {key: array.shape for key, array in read(tmp_path / "w.safetensors").tensors.items()}
    assert nearest(shapes) == f"{name}, which has {len(shapes) - 2} of the file's {len(shapes)} arrays"
