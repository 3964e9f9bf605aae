"""The CamVid experiment in miniature: trained, attacked, written, concluded from; and what is not done twice."""

import json
from argparse import Namespace

import pytest

import keras_robust as kr
from tests import scripts

pytestmark = pytest.mark.once


@pytest.fixture
def script():
    return scripts.load("recipes/camvid.py")


@pytest.fixture
def figures():
    return scripts.load("recipes/camvid_figures.py")


@pytest.mark.slow
def test_a_cell(small_segmenter, script, figures, tmp_path, monkeypatch):
    """From a given backbone; a second call trains and attacks nothing."""
    kr.weights.save(kr.models.create("convnext_atto_convstem", num_classes=3), tmp_path / "robust.safetensors")
    scale, runs, results = script.SCALES["smoke"], tmp_path / "runs", tmp_path / "results" / "smoke"
    cell = script.Cell(script.ROBUST, 0)
    script.run_cell(cell, scale, tmp_path / "robust.safetensors", None, runs, results)
    found = json.loads((results / "robust-backbone-0.json").read_text())
    assert list(found["sea"]["threats"]) == ["Linf:4/255"]
    assert len(found["training"]["seconds"]) == scale.epochs
    assert len(found["images"]["Linf:4/255"]) == scale.n_examples
    assert (results / "robust-backbone-0.png").stat().st_size > 100
    figures.summary(Namespace(results=tmp_path / "results", scale="smoke"))
    text = (results / "summary.md").read_text()
    assert "| adversarial, robust backbone |" in text
    assert "with 6 iterations" in text
    assert (results / "radii.svg").is_file()
    monkeypatch.setattr(kr.AdversarialModel, "fit", None)
    monkeypatch.setattr(kr.attacks.APGD, "__call__", None)
    script.run_cell(cell, scale, tmp_path / "robust.safetensors", None, runs, results)
    (tmp_path / "other.safetensors").write_bytes(b"other")
    with pytest.raises(
        ValueError, match=r"results holds robust-backbone-0\.json of other settings: backbone\.name is "
    ):
        script.run_cell(cell, scale, tmp_path / "other.safetensors", None, runs, results)
    (results / "robust-backbone-0.json").unlink()
    script.run_cell(cell, scale, tmp_path / "robust.safetensors", None, runs, results)
    again = json.loads((results / "robust-backbone-0.json").read_text())
    assert {**again, "sea_seconds": 0} == {**found, "sea_seconds": 0}


def test_the_classifier_that_was_trained_is_the_one_recorded(script, tmp_path, monkeypatch):
    data, runs, results = tmp_path / "data", tmp_path / "runs", tmp_path / "results"
    for name in ("imagenette-train-128.tar", "imagenette-val-192.tar"):
        (data / "imagenette").mkdir(parents=True, exist_ok=True)
        (data / "imagenette" / name).touch()
    trained = []

    def train(recipe, folder):
        trained.append(recipe)
        folder.mkdir(parents=True)
        (folder / "history.json").write_text("{}")

    monkeypatch.setattr(kr.recipes, "train", train)
    scale = script.SCALES["smoke"]
    script.train_classifier(scale, data, runs, results)
    script.train_classifier(scale, data, runs, results)
    (recipe,) = trained
    text = (results / "classifier.json").read_text()
    assert str(tmp_path) not in text
    found, wanted = json.loads(text)["recipe"], json.loads(recipe.to_json())
    names = {"source": "imagenette-train-128.tar", "validation": "imagenette-val-192.tar"}
    assert found == {**wanted, "data": {**wanted["data"], **names}}
    other = script.SCALES["cpu"]
    with pytest.raises(ValueError, match=r"results holds classifier\.json of other settings: scale\."):
        script.train_classifier(other, data, runs, results)


def test_a_result_of_another_backbone_is_not_taken_for_this_one(script, tmp_path):
    weights, scale = tmp_path / "robust.keras", script.SCALES["smoke"]
    weights.write_bytes(b"first")
    started_from = script.identity(scale, weights)
    path = tmp_path / "robust-backbone-0.json"
    assert not script.is_done(path, started_from)
    path.write_text(json.dumps({**started_from, "sea": {}}))
    assert script.is_done(path, started_from)
    weights.write_bytes(b"other")
    with pytest.raises(ValueError, match=r"of other settings: backbone\.sha256 is "):
        script.is_done(path, script.identity(scale, weights))
    with pytest.raises(ValueError, match=r"backbone must be a file with weights; there is no .*none\.keras"):
        script.identity(scale, tmp_path / "none.keras")


def test_every_cell_comes_after_what_it_starts_from(script, capsys, tmp_path):
    scale = script.SCALES["cpu"]
    names = [cell.name for cell in script.cells(scale, list(script.WAYS), None)]
    assert names[0] == "classifier"
    assert len(names) == len(set(names)) == 1 + 3 * 3
    assert "classifier" not in [cell.name for cell in script.cells(scale, ["clean"], None)]
    assert "classifier" not in [cell.name for cell in script.cells(scale, list(script.WAYS), tmp_path)]


def test_claim_from_numbers_that_are_known(figures, tmp_path):
    """Two seeds; the gains at 4/255 are 10 and 12 points of mean IoU, those of clean images -1 and 3."""

    def cell(way, seed, clean, robust, weights="first"):
        def row(value):
            return {"mean_iou": value, "pixel_accuracy": value}

        sea = {"clean": row(clean), "threats": {"Linf:4/255": {"worst": row(robust)}}, "warnings": []}
        backbone = {"name": "robust.keras", "sha256": weights} if way == "robust-backbone" else None
        found = {"way": way, "seed": seed, "sea": sea, "scale": {"epochs": 2}, "backbone": backbone}
        (tmp_path / f"{way}-{seed}.json").write_text(json.dumps(found))

    for seed, (clean, robust) in enumerate([(0.5, 0.2), (0.52, 0.22)]):
        cell("adversarial", seed, clean, robust)
        cell("robust-backbone", seed, clean + (-0.01, 0.03)[seed], robust + (0.1, 0.12)[seed])
    lines = list(figures.claim(figures.Experiment(tmp_path)))
    assert "- mean IoU, clean, 2 seeds: +1.0 points (-24.4 to +26.4): not decided" in lines
    # Student's t of one degree of freedom: 11 points -+ 12.706 * sqrt(2) / sqrt(2).
    assert "- mean IoU, Linf:4/255, 2 seeds: +11.0 points (-1.7 to +23.7): not decided" in lines
    cell("robust-backbone", 1, 0.52, 0.322)
    assert "- mean IoU, Linf:4/255, 2 seeds: +10.1 points (+8.8 to +11.4): holds" in figures.claim(
        figures.Experiment(tmp_path)
    )
    cell("robust-backbone", 1, 0.52, 0.322, weights="other")
    with pytest.raises(ValueError, match=r"results must be of one backbone; .* are of \{.*\} and \{"):
        figures.Experiment(tmp_path)
