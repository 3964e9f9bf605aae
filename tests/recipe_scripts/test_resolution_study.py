import json

import pytest

import keras_robust as kr
from keras_robust.models import registry
from keras_robust.models.convnext import ConvNeXt
from tests import scripts
from tests.evaluation.problem import linear_model

pytestmark = pytest.mark.once


@pytest.fixture
def study():
    return scripts.load("recipes/resolution_study.py")


@pytest.fixture
def quick(monkeypatch):
    """AutoAttack's version "short" with an attack that takes no time."""
    fgsm = kr.attacks.FGSM(kr.ThreatModel("Linf", 0.1), returns="misclassified")
    evaluate = kr.evaluation.evaluate

    def with_fgsm(model, dataset, threats, resolutions, attack, **options):
        return evaluate(model, dataset, threats, resolutions, [fgsm], verbose=False, **options)

    monkeypatch.setattr(kr.evaluation, "evaluate", with_fgsm)


def test_models_beside_each_other(study, quick, tmp_path):
    linear_model().save(tmp_path / "patch.keras")
    linear_model().save(tmp_path / "conv.keras")
    (tmp_path / "classes.txt").write_text("brick\ngrass\n")
    out = tmp_path / "out"
    crops = kr.data.photo_crops("val", per_class=2)
    source = crops.sample(4)
    source.class_names = ("brick", "grass")
    source.labels = source.labels % 2
    given = f"--models patch:{tmp_path}/patch.keras {tmp_path}/conv.keras --resolutions 8 12 --eps 4 8 --out {out}"
    options = study.arguments([*given.split(), "--batch-size", "4"])
    options.data = source
    study.main(options)
    for name in ("patch", "conv"):
        cells = json.loads((out / name / "report.json").read_text())["results"]
        assert [(cell["resolution"], round(255 * cell["eps"])) for cell in cells] == [(8, 4), (8, 8), (12, 4), (12, 8)]
    assert "conv against patch" in (out / "report.html").read_text()
    # Pixels alone: six multiply-adds at any size make no axis.
    assert (out / "figure.svg").read_text().count("accuracy (%)") == 4


def test_help_and_usage(study, capsys):
    with pytest.raises(SystemExit, match="0"):
        study.arguments(["--help"])
    assert "--smoke" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        study.arguments([])


@pytest.mark.parametrize("text", ["vit_tiny=w.weights.h5", "absent.keras"])
def test_files_that_are_not_there(study, text):
    with pytest.raises((ValueError, FileNotFoundError), match="there is no file"):
        study.load(text, 10)


@pytest.mark.slow
def test_smoke_trains_its_models(study, quick, monkeypatch, tmp_path):
    small = ConvNeXt((1, 1, 1, 1), (8, 8, 8, 8), conv_stem=(4, 8))
    registry.register("convnext_test", small)
    train = study.train
    monkeypatch.setattr(study, "SMOKE", ("convnext_test",))
    monkeypatch.setattr(study, "train", lambda name: train(name, per_class=5))
    study.main(study.arguments(["--smoke", "--n-examples", "8", "--out", str(tmp_path)]))
    cells = json.loads((tmp_path / "convnext_test" / "report.json").read_text())["results"]
    assert [cell["resolution"] for cell in cells[::3]] == [32, 40, 48, 56]
    assert (tmp_path / "figure.svg").read_text().count("accuracy (%)") == 1  # of one model: a line for each radius
