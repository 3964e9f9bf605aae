"""ONNX, LiteRT and .keras files, loaded by their own runtimes."""

import json
import zipfile

import keras
import numpy as np
import pytest

import keras_robust as kr
from tests.export.samples import NAMES, QUICK, THREAT

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the others make them by TensorFlow")
OPTIONS = {"class_names": NAMES, "threat": THREAT, "resolution": 32, "verify": QUICK, "verbose": False}


def logits_of(model, images):
    return keras.ops.convert_to_numpy(model(images.astype("float32") / 255, training=False))


@on_tensorflow
@pytest.mark.parametrize("name", ["convnext", "vit"])
def test_onnx(name, images, tmp_path, request):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    model, path = request.getfixturevalue(name), tmp_path / "model.onnx"
    result = kr.export.export(model, path, "onnx", **OPTIONS)
    assert not result.failed
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (inputs,) = session.get_inputs()
    assert (inputs.name, inputs.type) == ("images", "tensor(float)")
    for batch in (images, images[:1, :, ::-1], images[:, :32]):
        outputs = session.run(["logits", "classes", "top5_classes"], {"images": batch.astype("float32") / 255})
        expected = logits_of(model, batch)
        np.testing.assert_allclose(outputs[0], expected, rtol=0, atol=1e-4 * np.abs(expected).max())
        np.testing.assert_array_equal(outputs[2], np.argsort(-expected, axis=1)[:, :5])
        np.testing.assert_array_equal(outputs[1], outputs[2][:, 0])
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["class_names.txt"].split() == NAMES
    assert "L2, radius 0.5" in metadata["model_card.md"]
    assert json.loads((tmp_path / "model.onnx.verification.json").read_text())["passed"]


@on_tensorflow
@pytest.mark.parametrize(("name", "dtype", "apart"), [("convnext", "float32", 1e-4), ("vit", "float16", 1e-2)])
def test_litert(name, dtype, apart, images, tmp_path, request):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    model, path = request.getfixturevalue(name), tmp_path / "model.tflite"
    result = kr.export.export(model, path, "litert", dtype=dtype, **OPTIONS)
    assert not result.failed
    runtime = interpreter.Interpreter(str(path))
    expected = logits_of(model, images)
    runner = runtime.get_signature_runner("logits")
    logits = runner(images=images.astype("float32") / 255)["logits"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=apart * np.abs(expected).max())
    served = runtime.get_signature_runner("serving_default")(images=images)
    np.testing.assert_array_equal(served["classes"], logits.argmax(1))
    with zipfile.ZipFile(path) as archive:
        assert archive.read("keras_robust/class_names.txt").decode().split() == NAMES
    bytes_per_weight = path.stat().st_size / model.count_params()
    assert bytes_per_weight < (4.3 if dtype == "float32" else 2.4)


def test_keras(toy, images, tmp_path):
    path = tmp_path / "toy.keras"
    result = kr.export.export(toy, path, "keras", verify=QUICK, resolution=32, verbose=False)
    assert not result.failed
    assert any("own gradients" in check.name for check in result.checks)
    reloaded = keras.models.load_model(path)
    np.testing.assert_allclose(logits_of(reloaded, images), logits_of(toy, images), atol=1e-6)
    assert "# toy" in kr.export.load_artefact(path).documents()["model_card.md"]


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow makes it itself")
def test_other_backends_export_by_tensorflow(toy, images, tmp_path):
    tf = pytest.importorskip("tensorflow")
    result = kr.export.export(toy, tmp_path / "toy", resolution=32, verify=QUICK, verbose=False)
    assert not result.failed
    logits = tf.saved_model.load(str(tmp_path / "toy")).signatures["logits"](
        images=tf.constant(images.astype("float32") / 255)
    )
    np.testing.assert_allclose(logits["logits"], logits_of(toy, images), atol=1e-5)
    metadata = json.loads((tmp_path / "toy" / "assets" / "metadata.json").read_text())
    assert metadata["versions"]["backend"] == keras.backend.backend()


def test_load_refuses_what_is_no_artefact(tmp_path):
    for path in (tmp_path, tmp_path / "none.onnx"):
        with pytest.raises(ValueError, match="SavedModel or a file"):
            kr.export.load_artefact(path)


@pytest.mark.parametrize("path", ["x.txt", "net.h5", "flowers.ONNX", "folder/model.pb"])
def test_paths_of_other_kinds_are_refused(path):
    with pytest.raises(ValueError, match=r"out must be a folder, or end in \.onnx, \.tflite, \.keras; received"):
        kr.export.format_of(path)
    assert kr.export.format_of("serving/net.2024/1.2") == "tf_saved_model"
