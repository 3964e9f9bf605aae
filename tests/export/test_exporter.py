"""Arguments, failures, and what they leave behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.export import formats
from tests.export.samples import QUICK, toy_model

ROOT = Path(kr.__file__).parents[1]

if keras.backend.backend() != "tensorflow":
    pytest.skip("test_formats.py runs every backend", allow_module_level=True)


class Subclassed(keras.Model):
    def call(self, images):
        return images


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "x", "format": "pb"}, "format must be one of 'tf_saved_model'"),
        ({"path": "x.bin", "format": "onnx"}, "path must end in .onnx"),
        ({"path": "x.onnx"}, "path must be that of a folder"),
        ({"path": "x.txt"}, "path must be that of a folder"),
        ({"path": "x", "dtype": "float16"}, "dtype of format 'tf_saved_model' must be one of 'float32'"),
        (
            {"path": "x.tflite", "format": "litert", "dtype": "int8"},
            "'float32', 'float16'; received 'int8'",
        ),
        ({"path": "x", "class_names": ["a", "b"]}, "class_names must be 3"),
        ({"path": "x", "class_names": ["a", "b", "c\nd"]}, "class_names must be 3"),
        ({"path": "x", "preset": "vit"}, "name must be one of .*received 'vit'"),
        ({"path": "x", "threat": "Linf"}, "threat must be a ThreatModel"),
        ({"path": "x", "resolution": 0}, "resolution must be an integer >= 1"),
        ({"path": "x", "crop_pct": 1.5}, "crop_pct must be a number in"),
        ({"path": "x", "interpolation": "nearest"}, "interpolation must be one of"),
        ({"path": "x", "report": [{"norm": "L2"}]}, "report must be rows with norm, eps"),
        ({"path": "x", "verify": "yes"}, "verify must be True, False or a kr.export.VerificationSettings"),
        ({"path": "x", "model": np.sum}, "model must be a keras.Model"),
        (
            {"path": "x", "model": keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])},
            "must take images of any",
        ),
        ({"path": "x", "model": Subclassed()}, "received a Subclassed, whose inputs .* kr.adapt"),
    ],
)
def test_wrong_arguments(toy, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        kr.export.export(**{"model": toy, **arguments})
    assert not list(tmp_path.iterdir())


def test_resolution_that_the_model_cannot_take(tmp_path):
    model = kr.models.create("vit_tiny", 3, 32)
    with pytest.raises(ValueError, match="a multiple of 16 for this model; received 40"):
        kr.export.export(model, tmp_path / "x", resolution=40)


def sabotage(monkeypatch, change):
    """Write another model than the one that is verified."""
    write = formats.Format.write

    def write_another(row, model, path, metadata, dtype):
        another = keras.models.clone_model(model)
        another.set_weights([change(value) for value in model.get_weights()])
        write(row, another, path, metadata, dtype)

    monkeypatch.setattr(formats.Format, "write", write_another)


def test_a_failed_check_leaves_what_was_there(toy, tmp_path, monkeypatch):
    path = tmp_path / "toy.keras"
    options = {"format": "keras", "resolution": 32, "verify": QUICK, "verbose": False}
    kr.export.export(toy, path, **options)
    with pytest.raises(ValueError, match="there is already"):
        kr.export.export(toy, path, **options)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert before.keys() == {"toy.keras", "toy.keras.verification.json"}
    sabotage(monkeypatch, lambda value: value * 1.001)
    with pytest.raises(kr.export.ExportError, match=r"differs from the original in: logits, 32 px") as caught:
        kr.export.export(toy, path, overwrite=True, **options)
    assert "logits, 32 px, 12 images: relative difference" in caught.value.verification.failed
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_an_unverified_file_has_no_verification_beside_it(toy, tmp_path):
    (tmp_path / "toy.keras.verification.json").touch()
    kr.export.export(toy, tmp_path / "toy.keras", "keras", verify=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["toy.keras"]


class TestSavedModel:
    def test_failed_checks_of_a_saved_model(self, toy, tmp_path, monkeypatch):
        sabotage(monkeypatch, lambda value: 0.5 * value)
        with pytest.raises(kr.export.ExportError) as caught:
            kr.export.export(toy, tmp_path / "toy", resolution=32, verify=QUICK, verbose=False)
        failed = " ".join(caught.value.verification.failed)
        for check in ("logits, 48 px", "logits, 32x48 px", "one image", "probabilities of 8-bit images"):
            assert check in failed
        assert not list(tmp_path.iterdir())

    @pytest.mark.filterwarnings("ignore:Zero gradients")
    def test_gradients_that_hide_the_weakness(self, toy, tmp_path, monkeypatch):
        """The same logits, but no gradient to attack them by."""
        write = formats.Format.write

        def write_masked(row, model, path, metadata, dtype):
            inputs = keras.Input((None, None, 3))
            masked = keras.Model(inputs, model(keras.layers.Lambda(keras.ops.stop_gradient)(inputs)))
            write(row, masked, path, metadata, dtype)

        monkeypatch.setattr(formats.Format, "write", write_masked)
        options = {"threat": kr.ThreatModel("Linf", 0.5), "resolution": 32, "verify": QUICK, "verbose": False}
        with pytest.raises(kr.export.ExportError) as caught:
            kr.export.export(toy, tmp_path / "toy", **options)
        assert caught.value.verification.failed == ["robust accuracy under the artefact's own gradients: difference"]
        assert not list(tmp_path.iterdir())

    def test_too_slow(self, toy, tmp_path):
        settings = kr.export.VerificationSettings(n_examples=4, n_iter=1, seconds=0.0, min_throughput=1e6)
        with pytest.raises(kr.export.ExportError, match="throughput in batches"):
            kr.export.export(toy, tmp_path / "toy", resolution=32, verify=settings, verbose=False)
        assert not list(tmp_path.iterdir())

    def test_replaces_a_saved_model_and_nothing_else(self, toy, tmp_path):
        path = tmp_path / "toy"
        kr.export.export(toy, path, resolution=32, verify=False)
        (path / "stale").touch()
        kr.export.export(toy, path, resolution=48, verify=False, overwrite=True)
        assert not (path / "stale").exists()
        assert (path / "saved_model.pb").exists()
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "mine.jpg").touch()
        with pytest.raises(ValueError, match="anything but a SavedModel"):
            kr.export.export(toy, tmp_path / "photos", verify=False, overwrite=True)
        assert {entry.name for entry in tmp_path.iterdir()} == {"toy", "photos"}

    def test_an_artefact_that_does_not_load(self, toy, tmp_path, monkeypatch):
        monkeypatch.setattr(formats.Format, "write", lambda row, model, path, *_: path.mkdir())
        with pytest.raises(kr.export.ExportError, match="failed in a fresh process"):
            kr.export.export(toy, tmp_path / "toy", resolution=32, verify=QUICK)
        assert not list(tmp_path.iterdir())

    def test_killed_midway(self, toy, tmp_path):
        """A killed export leaves a hidden folder aside, and nothing at its path."""
        toy.save(tmp_path / "toy.keras")
        script = (
            "import sys, time, keras, keras_robust as kr\n"
            "from keras_robust.export import exporter\n"
            "exporter.check_artefact = lambda *_: (print('written', flush=True), time.sleep(60))\n"
            "kr.export.export(keras.models.load_model('toy.keras'), 'out/toy', resolution=32,\n"
            "                 verify=kr.export.VerificationSettings(n_examples=1, n_iter=1))\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            assert process.stdout.readline() == b"written\n"
            process.send_signal(signal.SIGKILL)
        assert not (tmp_path / "out" / "toy").exists()
        assert all(entry.name.startswith(".toy.") for entry in (tmp_path / "out").iterdir())


def test_adversarial_trainer_and_mixed_precision_export_the_float32_model(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    trainer = kr.AdversarialModel(toy_model(), kr.attacks.FGSM(kr.ThreatModel("Linf", 0.1)))
    kr.export.export(trainer, tmp_path / "toy.keras", "keras", verify=False)
    keras.config.set_dtype_policy("float32")
    reloaded = keras.models.load_model(tmp_path / "toy.keras")
    assert {layer.compute_dtype for layer in reloaded.layers} == {"float32"}
