import json
import re
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from keras_robust.cli import quickstart
from keras_robust.models import registry
from keras_robust.models.convnext import IsotropicConvNeXt
from tests import scripts


@pytest.fixture
def folder(tmp_path):
    """Two classes of noise, one bright and one dark."""
    rng = np.random.default_rng(0)
    for name, low in (("bright", 128), ("dark", 0)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(low, low + 128, (40, 50, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def test_script_is_the_command(capsys):
    with pytest.raises(SystemExit):
        scripts.load("recipes/quickstart.py").main(["--help"])
    shown = capsys.readouterr().out
    for option in ("--backend", "--epochs", "--model", "--eps", "--norm", "--attack", "--out", "--data"):
        assert option in shown
    assert "keras-robust quickstart --data" in shown


def test_radius_is_a_number_or_a_fraction():
    assert quickstart.radius("8/255") == 8 / 255
    assert quickstart.radius("0.5") == 0.5


def test_without_tensorflow_no_artefact_is_written(tmp_path, monkeypatch, capsys):
    """At the end of all that works without it."""
    monkeypatch.setattr(quickstart.importlib.util, "find_spec", lambda name: None)
    quickstart._export(None, None, None, None, tmp_path / "saved_model")
    assert "No SavedModel" in capsys.readouterr().out
    assert not (tmp_path / "saved_model").exists()


def _one_class(folder):
    shutil.rmtree(folder / "dark")


def _one_image_each(folder):
    for path in folder.glob("*/*.png"):
        if path.stem != "0":
            path.unlink()


def _corrupt(folder):
    for path in sorted(folder.glob("bright/*.png")):
        path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ("--eps large", None, "argument --eps: invalid radius value: 'large'"),
        ("--eps -1", None, "argument --eps"),
        ("--eps 1/0", None, "argument --eps: invalid radius value: '1/0'"),
        ("--epochs 0", None, "argument --epochs: invalid count value: '0'"),
        ("--model convnext_ato_convstem", None, "convnext_atto_convstem"),
        ("--data nowhere", None, "nowhere"),
        ("", _one_class, "--data must hold at least two classes; .* holds bright"),
        ("", _one_image_each, "image"),
        ("", _corrupt, "bright.*png"),
    ],
)
def test_what_cannot_work_is_answered_on_one_line(options, change, message, folder, tmp_path, capsys):
    if change:
        change(folder)
        options += f" --data {folder}"
    try:
        status = quickstart.main(["--out", str(tmp_path / "out"), *options.split()])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("keras-robust quickstart: ")
    assert re.search(message, last)


def test_a_robust_model_that_learned_nothing_is_told_what_to_do():
    labels = np.repeat([0, 1, 2], [10, 6, 4])
    advice = quickstart.advice_after(0.5, labels)  # ten of twenty
    assert "one answer for all images has as much as the robust model, 50.0%" in advice
    assert "--epochs" in advice
    assert quickstart.advice_after(0.55, labels) is None


@pytest.mark.slow
def test_whole_recipe_on_a_folder(folder, tmp_path, monkeypatch, capsys):
    registry.register("convnext_test", IsotropicConvNeXt(1, 8))
    out = tmp_path / "out"
    options = f"--model convnext_test --epochs 1 --norm L2 --eps 1 --data {folder} --out {out}"
    monkeypatch.setattr(quickstart, "N_ITER", 7)  # a loop, which is traced once
    assert quickstart.main(options.split()) == 0

    for name in ("clean", "adversarial"):
        model = json.loads((out / "evaluation" / name / "report.json").read_text())
        assert model["settings"]["model"]["name"] == f"{name} training"
        cells = [(cell["norm"], cell["eps"], cell["resolution"]) for cell in model["results"]]
        eps = {"Linf": 4 / 255, "L2": 1.0, "L1": 12.0}
        assert cells == [(norm, eps[norm], side) for side in (32, 40, 48) for norm in eps]
        assert all(cell["n_examples"] == 16 for cell in model["results"])  # a fifth of the images
        assert list(model["settings"]["threats"][0]["attacks"]) == ["apgd-ce"]  # two classes: no DLR

    with Image.open(out / "data.png") as image:
        assert min(image.size) > 50
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "adversarial training against clean training" in page
    for run in ("clean", "adversarial", "twin"):
        assert list((out / "logs" / run / "validation").glob("*tfevents*"))

    x = np.random.default_rng(0).random((3, 40, 56, 3), np.float32)
    logits = keras.ops.convert_to_numpy(keras.models.load_model(out / "robust.keras")(x))
    assert logits.shape == (3, 2)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        saved_model = tf.saved_model.load(str(out / "saved_model"))
        np.testing.assert_allclose(saved_model.signatures["logits"](images=x)["logits"], logits, atol=1e-5)
    verification = json.loads((out / "saved_model" / "verification.json").read_text())
    assert verification["passed"]
    assert "| 48 | L1 12 |" in (out / "saved_model" / "model_card.md").read_text()
    last = capsys.readouterr().out.split("Done in")[-1]
    for name in (
        "report.html",
        "report.md",
        "evaluation",
        "data.png",
        "robust.keras",
        "clean.keras",
        "tensorboard --logdir",
    ):
        assert name in last
