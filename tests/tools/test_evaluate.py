"""tools/evaluate.py, as a command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_robust as kr
from keras_robust.cli import evaluate as evaluation
from tests import scripts
from tests.evaluation.problem import Flat, image_folder, linear_model

SCRIPT = scripts.ROOT / "tools" / "evaluate.py"
pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def tool():
    return scripts.load("tools/evaluate.py")


@pytest.fixture
def evaluate(tool):
    return lambda *arguments: tool.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, the model slightly changed, and images of two classes."""
    folder = tmp_path_factory.mktemp("place")
    model = linear_model()
    model.save(folder / "linear.keras")
    kernel, bias = model.get_weights()
    model.set_weights([kernel, bias + [0.01, 0]])
    model.save(folder / "shifted.keras")
    image_folder(folder / "images", 12)
    return folder


def options(place, model="linear.keras", data="images"):
    threats = ["--threats", "Linf:0.01", "--resolutions", 8, "--attack", "short", "--batch-size", 6]
    return ["--model", place / model, "--data", place / data, *threats, "--quiet"]


def test_help_needs_no_backend(tmp_path):
    (tmp_path / "keras.py").write_text("raise ImportError('keras was imported')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for arguments, expected in (([], "--image-list"), (["merge"], "folders"), (["compare"], "--names")):
        command = [sys.executable, SCRIPT, *arguments, "--help"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        assert expected in done.stdout
    assert (
        "keras-robust evaluate compare"
        in subprocess.run(
            [sys.executable, SCRIPT, "--help"], env=environment, capture_output=True, text=True, timeout=60, check=True
        ).stdout
    )


def test_evaluates_shards_merges_and_compares(place, evaluate, tmp_path, capsys):
    assert evaluate(*options(place), "--out", tmp_path / "one") == 0
    printed = capsys.readouterr().out
    expected = Flat(12).robust(kr.ThreatModel("Linf", 0.01), 8)
    assert f"{100 * expected.mean():.1f} %" in printed
    assert "warning: linear: Few classes" in printed
    assert str(tmp_path / "one" / "report.html") in printed
    content = json.loads((tmp_path / "one" / "report.json").read_text())
    assert content["settings"]["model"]["name"] == "linear"
    with np.load(tmp_path / "one" / "per_image.npz") as arrays:
        assert sorted(arrays["name"])[0] == "no/0.png" if Flat(12).labels[0] == 0 else "yes/0.png"
        robust = {name: broken == 3 for name, broken in zip(arrays["name"], arrays["0/misclassified_at"])}
    for index, label in enumerate(Flat(12).labels):
        assert robust[f"{('no', 'yes')[label]}/{index}.png"] == expected[index]

    for part in ("1/2", "2/2"):
        assert evaluate(*options(place, "shifted.keras"), "--out", tmp_path / "two", "--shard", part) == 0
    assert "merge" in capsys.readouterr().out
    assert evaluate("merge", tmp_path / "two", "--out", tmp_path / "two") == 0
    reports = [tmp_path / "one" / "report.json", tmp_path / "two"]
    assert evaluate("compare", *reports, "--out", tmp_path / "both") == 0
    printed = capsys.readouterr().out
    assert "shifted against linear, image by image" in printed
    assert (tmp_path / "both" / "report.html").exists()
    assert evaluate("compare", reports[0], reports[0]) == 2
    assert "--names must differ" in capsys.readouterr().err
    assert evaluate("compare", *reports, "--names", "a") == 2


def test_corrupt_files(place, evaluate, tmp_path, capsys):
    data = tmp_path / "data"
    for name in ("no", "yes"):
        (data / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), "white").save(data / name / "1.png")
    (data / "no" / "broken.jpg").write_bytes(b"\xff\xd8\xff not a photograph")
    (data / "yes" / "notes.txt").write_text("not an image")
    assert evaluate(*options(place, data=data), "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "broken.jpg" in error
    assert "notes.txt" in error
    assert not (tmp_path / "out").exists()
    assert evaluate(*options(place, data=data), "--out", tmp_path / "out", "--skip-corrupt") == 0
    printed = capsys.readouterr().out
    assert "skipped 2 images that could not be read" in printed
    assert "notes.txt" in printed
    assert json.loads((tmp_path / "out" / "report.json").read_text())["results"][0]["n_examples"] == 2


def test_architecture_without_weights(place, evaluate, tmp_path, capsys):
    assert evaluate(*options(place)[2:], "--model", "vit_tiny", "--out", tmp_path / "other") == 2
    assert "weights must be given for the architecture 'vit_tiny'" in capsys.readouterr().err


def test_what_is_not_given_is_left_to_the_model(tool, evaluate, monkeypatch, tmp_path, capsys):
    given = {}
    monkeypatch.setattr(kr.export, "load_model", lambda *arguments: arguments)
    monkeypatch.setattr(kr.evaluation, "evaluate", lambda *arguments, **options: given.update(options, args=arguments))
    command = ["--model", "robarch_small_110ep", "--weights", "w.pt", "--data", "photo_crops", "--out", tmp_path]
    assert evaluate(*command, "--shard", "1/2") == 0
    assert (given["interpolation"], given["crop_pct"]) == (None, None)
    model, _, threats, resolutions, attack, n_examples, seed, out = given["args"]
    assert model[:2] == ("robarch_small_110ep", Path("w.pt"))
    assert [str(threat) for threat in threats] == ["Linf 4/255", "L2 2", "L1 75"]
    assert (resolutions, attack, n_examples, seed, out) == ([224], "standard", None, 0, tmp_path)
    assert evaluate(*command, "--shard", "1/2", "--interpolation", "bicubic", "--crop-pct", 1) == 0
    assert (given["interpolation"], given["crop_pct"]) == ("bicubic", 1.0)


def test_threats_are_written_as_norm_and_radii():
    assert evaluation.threats(["Linf:2/255,4/255", "L2:0.5"]) == [
        kr.ThreatModel("Linf", 2 / 255),
        kr.ThreatModel("Linf", 4 / 255),
        kr.ThreatModel("L2", 0.5),
    ]
    for text in ("Linf", "Linf:", "Linf:x", "Linf:1/0", "L2:1/2/3"):
        with pytest.raises(ValueError, match="threat must be written NORM:EPS"):
            evaluation.threats([text])
    with pytest.raises(ValueError, match="norm must be one of"):
        evaluation.threats(["Linv:1"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--model", "absent.keras"], "there is no file absent.keras"),
        (["--model", "convnext_tinny"], "received 'convnext_tinny'"),
        (["--data", "absent"], "'photo_crops', 'tfds:NAME'"),
        (["--threats", "Linf"], "--threats must be written NORM:EPS"),
        (["--attack", "hard"], "--attack must be one of"),
        (["--data", "photo_crops"], "the dataset has 10 classes (brick, grass, gravel, ...), the model 2 outputs"),
        (["--n-examples", "99"], "--n-examples must be at most the 12 images"),
        (["--shard", "1"], "--shard must be I/N"),
        (["--shard", "3/2"], "1 <= i <= n"),
        (["--classes", "absent.txt"], "absent.txt"),
    ],
)
def test_bad_input_is_one_line_and_code_2(changes, message, place, evaluate, tmp_path, capsys):
    assert evaluate(*options(place), "--out", tmp_path / "out", *changes) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_bad_usage(evaluate, capsys):
    for arguments in ([], ["--model", "m", "--data", "d", "--out", "o", "--mean", "0", "0", "0"], ["merge"]):
        with pytest.raises(SystemExit, match="2"):
            evaluate(*arguments)
