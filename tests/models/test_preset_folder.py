"""Presets of one's own: in a folder, and on a Hub on loopback."""

import json

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.evaluation.evaluate import preprocessing_of
from keras_robust.models.convnext import IsotropicConvNeXt
from tests.weights.servers import Answer, serving_hub

pytestmark = pytest.mark.once

HOW = kr.models.Preprocessing(resolution=32, crop_pct=1.0, interpolation="bilinear")
ROW = {
    "norm": "Linf",
    "eps": 4 / 255,
    "resolution": 32,
    "n_examples": 200,
    "clean_accuracy": 0.75,
    "robust_accuracy": 0.5,
    "robust_interval_95": [0.43, 0.57],
}
X = np.random.default_rng(0).random((2, 32, 32, 3), dtype="float32")


@pytest.fixture
def model():
    kr.models.register("tiny_isotropic", IsotropicConvNeXt(1, 4))
    mean = ((0.4, 0.5, 0.6), (0.2, 0.2, 0.2))
    return kr.models.create("tiny_isotropic", num_classes=3, normalization=mean)


@pytest.fixture
def saved(model, tmp_path):
    return kr.models.save_preset(
        model,
        tmp_path / "mine",
        preprocessing=HOW,
        class_names=["ant", "bee", "cat"],
        threat=kr.ThreatModel("Linf", 4 / 255),
        report=[ROW],
        licence="Apache-2.0",
        source="https://example.com",
        datasets=["imagenet-1k", "somebody/crops"],
    )


def logits(model):
    return keras.ops.convert_to_numpy(model(keras.ops.convert_to_tensor(X)))


def test_the_model_comes_back_with_what_is_known_about_it(model, saved):
    loaded = kr.models.from_preset(saved)
    np.testing.assert_array_equal(logits(loaded), logits(model))
    assert kr.models.class_names(loaded) == ("ant", "bee", "cat")
    assert kr.models.class_names(model) is None  # the original stays as it was
    assert loaded.preprocessing == HOW
    assert preprocessing_of(loaded, None, None) == (1.0, "bilinear")
    assert kr.models.architecture_of(loaded) == kr.models.architecture("tiny_isotropic")
    assert sorted(path.name for path in saved.iterdir()) == ["README.md", "model.keras", "preset.json"]
    # What a preset knows goes on into another one, and into what the commands load.
    again = kr.models.save_preset(loaded, saved.with_name("again"))
    assert kr.export.load_model(again).preprocessing == HOW
    assert kr.models.class_names(kr.export.load_model(str(again))) == ("ant", "bee", "cat")


def test_the_record(model, saved):
    record = json.loads((saved / "preset.json").read_text())
    assert record["architecture"] == "tiny_isotropic"
    assert record["parameters"] == kr.models.parameters(model)
    assert record["evaluation"] == [ROW]
    assert record["threat"] == {"norm": "Linf", "eps": 4 / 255}
    assert record["sha256"] == kr.weights.sha256_of(saved / "model.keras")


def test_the_card_has_the_hubs_metadata(saved):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    card = huggingface_hub.ModelCard.load(saved / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "keras")
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.datasets == ["imagenet-1k", "somebody/crops"]
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert results == {"Accuracy, clean": 0.75, "Accuracy, under attack, Linf 0.01569": 0.5}
    assert "| 32 | Linf 0.01569 | 200 | 75.0 | 50.0 | 43.0 to 57.0 |" in card.text


def test_mixed_precision_is_saved_as_it_is_evaluated(tmp_path):
    kr.models.register("tiny_isotropic", IsotropicConvNeXt(1, 4))
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = kr.models.create("tiny_isotropic", num_classes=3)
    keras.config.set_dtype_policy("float32")
    loaded = kr.models.from_preset(kr.models.save_preset(model, tmp_path / "mine", preprocessing=HOW))
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"preprocessing must be a kr.models.Preprocessing\(resolution"),
        ({"preprocessing": HOW, "class_names": ["a"]}, "class_names must be 3"),
        ({"preprocessing": HOW, "threat": "Linf"}, "threat must be a ThreatModel"),
        ({"preprocessing": HOW, "report": [{"norm": "L2"}]}, "report must be rows with norm"),
        ({"preprocessing": HOW, "model": np.sum}, "model must be a keras.Model"),
        ({"preprocessing": HOW, "datasets": "imagenet-1k"}, "datasets must be names on the Hub"),
        ({"preprocessing": HOW, "datasets": ["a\nb"]}, "datasets must be names on the Hub"),
    ],
)
def test_wrong_arguments_leave_nothing(model, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        kr.models.save_preset(**{"model": model, "folder": tmp_path / "mine", **arguments})
    assert not list(tmp_path.iterdir())


def test_only_a_preset_is_replaced(model, saved, tmp_path):
    with pytest.raises(ValueError, match="folder must be new, or a preset's with overwrite=True"):
        kr.models.save_preset(model, saved, preprocessing=HOW)
    kr.models.save_preset(model, saved, preprocessing=HOW, overwrite=True)
    assert kr.models.class_names(kr.models.from_preset(saved)) is None
    (tmp_path / "else").mkdir()
    with pytest.raises(ValueError, match="folder must be new"):
        kr.models.save_preset(model, tmp_path / "else", preprocessing=HOW, overwrite=True)


def test_damage_is_told(saved):
    content = (saved / "model.keras").read_bytes()
    (saved / "model.keras").write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"model\.keras is not the file that was saved: its SHA-256"):
        kr.models.from_preset(saved)
    (saved / "model.keras").unlink()
    with pytest.raises(ValueError, match=r"there is no file .*model\.keras"):
        kr.models.from_preset(saved)
    for text in ("{", "[]", json.dumps({"schema_version": 2}), json.dumps({"schema_version": 1})):
        (saved / "preset.json").write_text(text)
        with pytest.raises(ValueError, match=r"preset\.json is not the record of a preset"):
            kr.models.from_preset(saved)
    with pytest.raises(ValueError, match="weights and entry must be None with the folder of a preset"):
        kr.models.from_preset(saved, weights="w.pt")


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub 2.4 about itself
def test_to_the_hub_and_back(model, saved, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    with serving_hub(monkeypatch) as hub:
        hub.large = 5000  # so that the model goes by git-lfs, and the rest in the commit
        url = kr.models.upload_preset(saved, "hf://owner/name")
        assert url == f"{hub.hub.url}/owner/name"
        assert hub.created[0]["visibility"] == "private"
        assert set(hub.files) == {f"owner/name/{path.name}" for path in saved.iterdir()}
        assert len(hub.objects) == 1
        assert hub.cards[0] == (saved / "README.md").read_text()
        loaded = kr.models.from_preset("hf://owner/name")
        assert "MB from hf://owner/name; licence: Apache-2.0" in capsys.readouterr().err
    # From now on without a Hub.
    for again in (loaded, kr.models.from_preset("hf://owner/name"), kr.export.load_model("hf://owner/name")):
        np.testing.assert_array_equal(logits(again), logits(model))
        assert again.preprocessing == HOW


def test_another_model_on_the_hub_than_its_record_says(saved, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    with serving_hub(monkeypatch) as hub:
        hub.files = {f"owner/name/{path.name}": path.read_bytes() for path in saved.iterdir()}
        hub.files["owner/name/model.keras"] = hub.files["owner/name/model.keras"][::-1]
        with pytest.raises(ValueError, match=r"hf://owner/name/model\.keras is another one"):
            kr.models.from_preset("hf://owner/name")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda folder: kr.models.from_preset("hf://owner/name/file.pt"), "name must be hf://owner/name or"),
        (lambda folder: kr.models.upload_preset(folder, "owner/name"), "address must be hf://owner/name; received"),
        (lambda folder: kr.models.upload_preset(folder.parent, "hf://a/b"), "folder must be that of a preset"),
    ],
)
def test_wrong_addresses(saved, call, message):
    with pytest.raises(ValueError, match=message):
        call(saved)


def test_the_hub_refuses(saved, monkeypatch):
    with serving_hub(monkeypatch) as hub:
        hub._uploaded = lambda path, body: Answer(b"", 403)
        with pytest.raises(ConnectionError, match=r"hf://owner/name was not uploaded: .*403"):
            kr.models.upload_preset(saved, "hf://owner/name")
