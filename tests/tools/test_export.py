import json

import keras
import numpy as np
import pytest

import keras_robust as kr
from tests import scripts
from tests.export.samples import THREAT, toy_model

if keras.backend.backend() != "tensorflow":
    pytest.skip("tests/export runs every backend", allow_module_level=True)


@pytest.fixture(scope="module")
def tool():
    return scripts.load("tools/export.py")


@pytest.fixture
def saved(tmp_path):
    toy_model().save(tmp_path / "toy.keras")
    return str(tmp_path / "toy.keras")


def test_keras_file_with_all_that_is_known(tool, saved, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("0\tn01\tant\n1\tn02\tbee\n2\tn03\tcat\n")
    attack = [kr.attacks.FGSM(THREAT, returns="misclassified")]
    source = kr.data.photo_crops("val", per_class=1)
    labels = np.minimum(source.labels, 2)
    np.savez(tmp_path / "photos.npz", images=source.arrays(32)[0], labels=labels)
    report = kr.evaluation.evaluate(
        toy_model(), kr.evaluation.open_dataset(tmp_path / "photos.npz"), [THREAT], [32], attack, verbose=False
    )
    report.write_json(tmp_path / "report")
    arguments = [saved, str(tmp_path / "out"), "--classes", str(tmp_path / "names.txt"), "--resolution", "32"]
    arguments += ["--threat", "L2:1/2", "--report", str(tmp_path / "report" / "report.json"), "--no-verify"]
    assert tool.main(arguments) == 0
    assert "written, not verified" in capsys.readouterr().out
    metadata = json.loads((tmp_path / "out" / "assets" / "metadata.json").read_text())
    assert metadata["class_names"] == ["ant", "bee", "cat"]
    assert metadata["threat"] == {"norm": "L2", "eps": 0.5}
    assert metadata["input"]["resolution"] == 32
    assert metadata["evaluation"][0]["n_examples"] == 10
    assert metadata["evaluation"][0]["robust_accuracy"] == report[THREAT, 32].robust_accuracy


def test_verified_file(tool, saved, tmp_path, capsys):
    arguments = [saved, str(tmp_path / "again.keras"), "--resolution", "32", "--n-examples", "5"]
    assert tool.main(arguments) == 0
    output = capsys.readouterr().out
    assert "own gradients" in output
    assert "written and verified" in output
    assert (tmp_path / "again.keras.verification.json").exists()


def test_a_failed_check_is_named(tool, saved, tmp_path, monkeypatch, capsys):
    write = kr.export.FORMATS["keras"].write

    def write_another(row, model, *where):
        model.get_layer(index=-1).bias.assign([1, 2, 3])
        write(model, *where)

    monkeypatch.setattr(type(kr.export.FORMATS["keras"]), "write", write_another)
    assert tool.main([saved, str(tmp_path / "again.keras"), "--resolution", "32", "--n-examples", "5"]) == 1
    assert "logits, 32 px" in capsys.readouterr().err
    assert not (tmp_path / "again.keras").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.keras", "out"], "there is no file none.keras"),
        (["resnet51", "out"], "model must be"),
        (["vit_tiny", "out"], "weights must be given"),
        (["SAVED", "out", "--threat", "Linf:four"], "--threat must be written NORM:EPS, as Linf:4/255"),
        (["SAVED", "out", "--dtype", "float16"], "must be one of 'float32'; received 'float16'"),
        (["SAVED", "out", "--data", "nowhere"], "nowhere"),
        (["SAVED", "out", "--report", "none.json"], "none.json"),
        (["SAVED", "out", "--classes", "SAVED"], ""),
    ],
)
def test_bad_arguments(tool, saved, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert tool.main([saved if argument == "SAVED" else argument for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("keras-robust export: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_training_run(tool, tmp_path):
    """Raw weights and averages of a run differ; threat model and resolution are those of its recipe."""
    from tests.recipes import tiny

    source = tiny.images(tmp_path / "images.npz")
    kr.recipes.train(tiny.recipe(source), tmp_path / "run", verbose=False)
    x = np.random.default_rng(0).random((2, 16, 32, 3), np.float32)
    logits = {}
    for which, file in (("last", "model.keras"), ("ema", "model_ema.keras")):
        out = tmp_path / f"{which}.keras"
        assert tool.main([str(tmp_path / "run"), str(out), "--run-weights", which, "--no-verify"]) == 0
        logits[which] = keras.models.load_model(out).predict(x, verbose=0)
        expected = keras.models.load_model(tmp_path / "run" / file).predict(x, verbose=0)
        np.testing.assert_allclose(logits[which], expected, atol=1e-6)
        metadata = json.loads(kr.export.load_artefact(out).documents()["metadata.json"])
        assert metadata["input"]["resolution"] == 16
        assert metadata["threat"] == {"norm": "Linf", "eps": 4 / 255}
    assert np.abs(logits["last"] - logits["ema"]).max() > 1e-4
