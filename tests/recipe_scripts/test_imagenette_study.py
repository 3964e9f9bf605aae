"""The study's smallest cells end to end, and what is concluded from numbers that are known."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.models import registry
from keras_robust.models.vit import ViT
from tests import scripts

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the same code on all backends")


@pytest.fixture
def study():
    return scripts.load("recipes/imagenette_study.py")


@pytest.fixture
def figures():
    return scripts.load("recipes/imagenette_figures.py")


def test_a_clean_start_and_what_is_trained_from_it(study, tmp_path):
    """Trained, attacked, written; a second call finds it done."""
    registry.register("vit_study", ViT(8, 2, depth=1))
    scale = replace(study.SCALES["smoke"], families={"vit": "vit_study"}, short_epochs=1)
    runs, results = tmp_path / "runs", tmp_path / "results"
    results.mkdir()
    for stage in ("clean", "pretrained"):
        cell = study.Cell("vit", study.PATCH, stage, 0)
        for _ in range(2):
            study.train(cell, scale, None, runs)
            study.evaluate(cell, scale, None, runs, results)
    (path,) = results.iterdir()
    found = json.loads(path.read_text())
    assert (found["family"], found["stage"], found["seed"]) == ("vit", "pretrained", 0)
    (row,) = found["threats"]
    assert row["norm"] == "Linf"
    assert len(row["is_robust"]) == row["n"] == 8
    assert row["is_robust"].count("1") == row["robust"] <= row["clean"]
    assert found["recipe"]["start"]["weights"].endswith("vit-patchstem-clean-0/model_ema.keras")
    assert found["training"]["done"]


def test_every_cell_comes_after_what_it_starts_from(study):
    scale = study.SCALES["cpu"]
    names = []
    for cell in study.cells(scale, ["convnext", "vit"]):
        start = study.recipe(cell, scale, None, study.Path("runs")).start.weights
        assert start is None or study.Path(start).parent.name in names
        names.append(cell.name)
    assert len(names) == len(set(names)) == 4 * (5 + 2 * 2)


@pytest.mark.parametrize(
    ("stages", "robust", "to_all"),
    [
        (("clean", "apgd-ce", "apgd-t", "fab-t", "square"), "00011", 1),  # standard
        (("clean", "apgd-ce", "apgd-t"), "00011", 2),  # short
        (("clean", "apgd-ce"), "00111", 3),
    ],
)
def test_models_are_compared_by_the_same_attacks(study, stages, robust, to_all):
    """Images that fall without attack, to each attack in turn, and to none: after two attacks two are left."""
    falls = np.minimum([0, 1, 2, 4, 5], len(stages))
    nothing = np.zeros(5, int)
    threat = kr.ThreatModel("Linf", 0.1)
    result = kr.attacks.AttackResult(threat, 48, stages, falls, nothing, nothing, nothing.astype(float), {}, {})
    row = study.row(result)
    assert (row["is_robust"], row["robust"], row["robust_to_all"]) == (robust, robust.count("1"), to_all)
    assert (row["n"], row["clean"]) == (5, 4)


def written(folder, family, stem, stage, seed, robust, sides=()):
    """Results of a cell: `robust` of 100 images under each threat model; `sides` as (resolution, robust)."""

    def row(norm, eps, count, resolution=48):
        bits = "1" * count + "0" * (100 - count)
        return {
            **{"norm": norm, "eps": eps, "resolution": resolution, "n": 100},
            **{"clean": min(100, count + 20), "robust": count, "robust_to_all": count - 5, "is_robust": bits},
        }

    cell = {
        **{"family": family, "stem": stem, "stage": stage, "seed": seed, "training": {"seconds": 60.0}},
        "threats": [row("Linf", 4 / 255, robust["Linf"]), row("L2", 0.4, robust["L2"]), row("L1", 16.0, robust["L1"])],
        "resolutions": [row("Linf", eps / 255, count, side) for side, count in sides for eps in (4, 6, 8)],
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{family}-{stem}-{stage}-{seed}.json").write_text(json.dumps(cell))


def test_verdicts_of_known_numbers(figures, tmp_path, capsys):
    """A gain of 30 of 100 holds, one of 1 is not decided, a loss of 30 does not hold; stems differ by 9, 10 and 11.

    Agresti and Min: (30 + 1.96 sqrt(31 - 30^2 / 102)) / 102 = 38.5 %, and 20.4 % at the other end.
    """
    folder = tmp_path / "cpu"
    for rung, count in (("random", 20), ("pretrained", 50), ("heavy", 51)):
        written(folder, "vit", "patchstem", rung, 0, dict.fromkeys(("Linf", "L2", "L1"), count))
    for seed, gain in enumerate((9, 10, 11)):
        for stem, more in (("patchstem", 0), ("convstem", gain)):
            robust = {"Linf": 21 + more, "L2": 30 + 2 * more, "L1": 10 + 3 * more}
            sides = [(48, 21), (96, 60), (144, 10 if stem == "patchstem" else 30)]
            written(folder, "vit", stem, "long", seed, robust, sides if seed == 0 else ())
    options = figures.parser().parse_args(["--results", str(tmp_path)])
    figures.summary(options)
    said = capsys.readouterr().out
    assert "ViT, PatchStem, random -> pretrained: +30.0 points (+20.4 to +38.5): holds" in said
    assert "ViT, PatchStem, pretrained -> heavy: +1.0 points" in said
    assert "heavy -> long: -30.0 points (-38.5 to -20.4): does not hold" in said
    # Mean 10, deviation 1: 4.303 / sqrt(3) = 2.48.
    assert "ViT, Linf, ConvStem over PatchStem, 3 seeds: +10.0 points (+7.5 to +12.5): holds" in said
    assert "ViT, L2, ConvStem over PatchStem, 3 seeds: +20.0 points (+15.0 to +25.0): holds" in said
    assert "ViT: the gain at L2 and at L1 is larger than that at Linf" in said
    assert "ViT, PatchStem, 48 -> 96 px: +39.0 points" in said
    assert "not below 48 px up to 96 px" in said
    assert "ViT: the ConvStem decays later" in said
    assert "| ViT, ConvStem | 25.0 | 43.0 | 32.0 |" in said
    assert "| ViT, ConvStem | long | 51.0 (50.0, 51.0, 52.0) | 31.0 (30.0, 31.0, 32.0) |" in said
    for name in ("ladder", "stems", "resolution"):
        assert (folder / f"{name}.svg").stat().st_size > 1000


def test_no_results(figures, tmp_path):
    with pytest.raises(ValueError, match="scale must be one that was run"):
        figures.summary(figures.parser().parse_args(["--results", str(tmp_path)]))
