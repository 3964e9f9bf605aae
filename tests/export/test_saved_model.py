"""The signatures of an exported SavedModel, called as a server calls them."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.layers import ImageInput
from tests.export.samples import NAMES, QUICK, THREAT

if keras.backend.backend() != "tensorflow":
    pytest.skip("SavedModels of the other backends are made by TensorFlow, too", allow_module_level=True)

import tensorflow as tf


@pytest.fixture(scope="module")
def exported(convnext, tmp_path_factory):
    """A verified SavedModel, its verification, and what it loads as."""
    path = tmp_path_factory.mktemp("served") / "insects" / "1"
    report = [
        {
            "norm": "L2",
            "eps": 0.5,
            "resolution": 32,
            "n_examples": 500,
            "clean_accuracy": 0.9,
            "robust_accuracy": 0.621,
            "robust_interval_95": (0.578, 0.662),
        }
    ]
    options = {"class_names": NAMES, "threat": THREAT, "report": report, "resolution": 32, "verify": QUICK}
    result = kr.export.export(convnext, path, verbose=False, **options)
    return path, result, tf.saved_model.load(str(path))


def softmax(logits):
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def test_verified_in_a_fresh_process(exported):
    path, result, _ = exported
    assert not result.failed
    names = " ".join(check.name for check in result.checks)
    for what in ("32 px", "48 px", "32x48 px", "JPEG and PNG", "top-5", "throughput", "own gradients", "adversarial"):
        assert what in names
    written = json.loads((path / "verification.json").read_text())
    assert written["passed"]
    assert written["threat"] == "L2 0.5"
    assert len(written["checks"]) == len(result.checks)
    assert written["measured"]["size_bytes"] > 5_000_000


def test_logits_and_gradients(exported, convnext, images):
    logits = exported[2].signatures["logits"]
    x = tf.constant(images.astype("float32") / 255)
    answers, gradients = [], []
    for function in (lambda x: logits(images=x)["logits"], lambda x: convnext(x, training=False)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            answers.append(function(x))
            margin = tf.reduce_sum(answers[-1][:, 0] - answers[-1][:, 1])
        gradients.append(tape.gradient(margin, x).numpy())
    np.testing.assert_allclose(answers[0], answers[1], rtol=0, atol=1e-5)
    assert np.abs(gradients[1]).max() > 0.01
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=0, atol=1e-5)


def test_serving_default(exported, convnext, images):
    outputs = {name: value.numpy() for name, value in exported[2].signatures["serving_default"](images=images).items()}
    expected = softmax(convnext(images.astype("float32") / 255, training=False).numpy())
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    order = np.argsort(-expected, axis=1)[:, :5]
    np.testing.assert_array_equal(outputs["top5_classes"], order)
    np.testing.assert_array_equal(outputs["classes"], order[:, 0])
    np.testing.assert_allclose(outputs["top5_probabilities"], np.take_along_axis(expected, order, 1), atol=1e-5)
    assert [name.decode() for name in outputs["names"]] == [NAMES[i] for i in order[:, 0]]
    assert [[name.decode() for name in row] for row in outputs["top5_names"]] == [
        [NAMES[i] for i in row] for row in order
    ]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, 32, 32, 3), "empty batch"),
        ((1, 31, 40, 3), "32 to 1024 pixels"),
        ((1, 40, 1025, 3), "32 to 1024 pixels"),
    ],
)
@pytest.mark.parametrize("signature", ["serving_default", "logits"])
def test_sizes_that_the_model_cannot_take(exported, signature, shape, message):
    dtype = tf.uint8 if signature == "serving_default" else tf.float32
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        exported[2].signatures[signature](images=tf.zeros(shape, dtype))


def test_a_wrong_dtype_is_refused(exported):
    with pytest.raises(tf.errors.InvalidArgumentError, match="uint8"):
        exported[2].signatures["serving_default"](images=tf.zeros((1, 32, 32, 3)))


def test_encoded_files(exported, convnext, tmp_path):
    from PIL import Image

    source = kr.data.photo_crops("val", per_class=1)
    files = []
    for index in range(3):
        Image.fromarray(source.image(index)).save(tmp_path / f"{index}.jpg", quality=90)
        files.append((tmp_path / f"{index}.jpg").read_bytes())
    pixels = np.stack([kr.data.resize_and_crop(kr.data.decode(tmp_path / f"{i}.jpg"), 32) for i in range(3)])
    expected = softmax(convnext(pixels.astype("float32") / 255, training=False).numpy())
    preprocessed = exported[2].signatures["preprocess"](images=tf.constant(files))["images"]
    assert np.abs(preprocessed.numpy().astype(int) - pixels).max() <= 1
    outputs = exported[2].signatures["jpeg"](images=tf.constant(files))
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=0.01)
    assert outputs["top5_names"].shape == (3, 5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be JPEG or PNG"):
        exported[2].signatures["jpeg"](images=tf.constant([files[0], b"no image"]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="empty batch"):
        exported[2].signatures["jpeg"](images=tf.zeros((0,), tf.string))


def test_what_travels_inside(exported):
    path = exported[0]
    documents = kr.export.load_artefact(path).documents()
    assert documents["class_names.txt"].split() == NAMES
    metadata = json.loads(documents["metadata.json"])
    assert metadata["threat"] == {"norm": "L2", "eps": 0.5}
    assert metadata["input"]["min_size"] == 32
    assert metadata["evaluation"][0]["robust_accuracy"] == 0.621
    assert metadata["versions"]["tensorflow"] == tf.__version__
    card = documents["model_card.md"]
    assert card == Path(path / "model_card.md").read_text(encoding="utf-8")
    assert "| 32 | L2 0.5 | 500 | 90.0 | 62.1 | 57.8 to 66.2 |" in card
    assert "shorter side to 36 pixels (bicubic, antialiased; crop_pct 0.875), centre crop of 32" in card


def test_multiples_of_the_patch(tmp_path):
    inputs = keras.Input((None, None, 3))
    h = ImageInput(minimum=16, multiple_of=16)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(h)))
    kr.export.export(model, tmp_path / "model", verify=False)
    logits = tf.saved_model.load(str(tmp_path / "model")).signatures["logits"]
    assert logits(images=tf.zeros((1, 48, 32, 3)))["logits"].shape == (1, 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="multiples of 16"):
        logits(images=tf.zeros((1, 40, 32, 3)))
