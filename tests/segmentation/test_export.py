"""Segmentation models as they are served: signatures, runtimes, and their evaluation."""

import asyncio
import json

import keras
import numpy as np
import pytest

import keras_robust as kr
from tests.export.samples import QUICK

from .conftest import CLASSES

if keras.backend.backend() != "tensorflow":
    pytest.skip("on the other backends, too, TensorFlow makes the artefacts", allow_module_level=True)

NAMES = ["road", "sky", "tree", "car"]
THREAT = kr.ThreatModel("Linf", 4 / 255)


@pytest.fixture(scope="module")
def net():
    """A net whose answers look at each pixel's surroundings, from random weights."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    options = {"padding": "same", "kernel_initializer": keras.initializers.RandomNormal(stddev=0.5)}
    x = keras.layers.Conv2D(8, 3, activation="relu", **options)(inputs)
    return keras.Model(inputs, keras.layers.Conv2D(CLASSES, 3, **options)(x))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 24, 40, 3)).astype("uint8")


def logits_of(model, images):
    return keras.ops.convert_to_numpy(model(images.astype("float32") / 255))


@pytest.fixture(scope="module")
def saved(net, tmp_path_factory):
    """A verified SavedModel, and its verification."""
    path = tmp_path_factory.mktemp("served") / "streets"
    options = {"class_names": NAMES, "threat": THREAT, "resolution": 32, "verify": QUICK, "verbose": False}
    return path, kr.export.export(net, path, **options)


def test_saved_model(net, saved, images):
    path, result = saved
    assert not result.failed
    names = " ".join(check.name for check in result.checks)
    for what in ("48 px", "32x48 px", "probabilities", "not the most probable", "JPEG", "own gradients", "adversarial"):
        assert what in names
    assert 0 < result.measured["robust_accuracy"] < 1  # of pixels
    artefact, expected = kr.export.load_artefact(path), logits_of(net, images)
    np.testing.assert_allclose(artefact(images.astype("float32") / 255), expected, atol=1e-5)
    outputs = artefact.predict(images)
    assert outputs.keys() == {"classes", "confidences"}
    np.testing.assert_array_equal(outputs["classes"], expected.argmax(-1))
    shares = np.exp(expected) / np.exp(expected).sum(-1, keepdims=True)
    np.testing.assert_allclose(outputs["confidences"], shares.max(-1), atol=1e-5)
    documents = artefact.documents()
    assert json.loads(documents["metadata.json"])["task"] == "segmentation"
    assert "`classes` int32 and `confidences`" in documents["model_card.md"]
    assert "top5" not in documents["model_card.md"]


def test_a_saved_model_is_attacked_as_it_is_served(net, saved, images):
    labels = logits_of(net, images).argmax(-1).astype("int32")
    labels[:, ::3] = -1
    served = kr.export.load_model(saved[0])
    report = kr.segmentation.evaluate(served, images, labels, verbose=False)
    assert report.clean.pixel_accuracy() == 1
    x = images.astype("float32") / 255
    x_adv = kr.attacks.PGD(THREAT, n_iter=3, returns="misclassified")(served, x, labels)
    broken = logits_of(net, 255 * x_adv).argmax(-1) != labels  # by the gradients of the one, shown to the other
    assert broken[labels >= 0].mean() > 0.02


def test_server(saved, images):
    pytest.importorskip("starlette")
    from keras_robust.export.server import Classifier, Limits

    classifier = Classifier(saved[0], Limits(batch=4, images=4, bytes=10**6, seconds=10, waiting=4))
    answer = asyncio.run(classifier.answer(json.dumps({"instances": images[:2].tolist()}).encode()))
    classifier.close()
    expected = kr.export.load_artefact(saved[0]).predict(images[:2])
    assert [row.keys() for row in answer["predictions"]] == 2 * [{"classes", "confidences"}]
    np.testing.assert_array_equal([row["classes"] for row in answer["predictions"]], expected["classes"])


def test_onnx(net, images, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    path = tmp_path / "streets.onnx"
    assert not kr.export.export(net, path, "onnx", resolution=32, verify=QUICK, verbose=False).failed
    served, expected = kr.export.load_model(path), logits_of(net, images)
    np.testing.assert_allclose(logits_of(served, images), expected, atol=1e-4)
    labels = np.full(expected.shape[:-1], 2, "int32")
    report = kr.segmentation.evaluate(served, images, labels, out=tmp_path / "report", verbose=False)
    assert report.clean.pixel_accuracy() == (expected.argmax(-1) == 2).mean()
    assert not report.threats
    assert "| clean |" in (tmp_path / "report/report.md").read_text()
    with pytest.raises(ValueError, match=r"threats must be none for a model without gradients: .*received Linf 4/255"):
        kr.segmentation.evaluate(served, images, labels, [THREAT], verbose=False)


@pytest.mark.slow
def test_upernet_in_onnx(segmenter, images, tmp_path):
    """Its maps change their size with the images'."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    kr.export.export(segmenter, tmp_path / "net.onnx", "onnx", verify=False)
    artefact = kr.export.load_artefact(tmp_path / "net.onnx")
    for height, width in ((32, 48), (51, 40)):
        x = np.random.default_rng(height).random((2, height, width, 3), "float32")
        expected = keras.ops.convert_to_numpy(segmenter(x))
        np.testing.assert_allclose(artefact(x), expected, atol=1e-4 * np.abs(expected).max())


def test_refused(net, tmp_path):
    with pytest.raises(ValueError, match="dataset must not be given for a model that classifies each pixel"):
        kr.export.export(net, tmp_path / "x", dataset=kr.data.photo_crops("val"))
    inputs = keras.Input((None, None, 3))
    fixed = keras.Model(inputs, keras.layers.Conv2D(1, 3, padding="same")(inputs))
    with pytest.raises(ValueError, match="at least 2 classes"):
        kr.export.export(fixed, tmp_path / "x")
