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
    (results / "robust-backbone-0.json").unlink()
    script.run_cell(cell, scale, tmp_path / "robust.safetensors", None, runs, results)
    again = json.loads((results / "robust-backbone-0.json").read_text())
    assert {**again, "sea_seconds": 0} == {**found, "sea_seconds": 0}


def test_every_cell_comes_after_what_it_starts_from(script, capsys, tmp_path):
    scale = script.SCALES["cpu"]
    names = [cell.name for cell in script.cells(scale, list(script.WAYS), None)]
    assert names[0] == "classifier"
    assert len(names) == len(set(names)) == 1 + 3 * 3
    assert "classifier" not in [cell.name for cell in script.cells(scale, ["clean"], None)]
    assert "classifier" not in [cell.name for cell in script.cells(scale, list(script.WAYS), tmp_path)]


def test_claim_from_numbers_that_are_known(figures, tmp_path):
    """Two seeds; the gains at 4/255 are 10 and 12 points of mean IoU, those of clean images -1 and 3."""

    def cell(way, seed, clean, robust):
        def row(value):
            return {"mean_iou": value, "pixel_accuracy": value}

        sea = {"clean": row(clean), "threats": {"Linf:4/255": {"worst": row(robust)}}, "warnings": []}
        (tmp_path / f"{way}-{seed}.json").write_text(json.dumps({"way": way, "seed": seed, "sea": sea}))

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
