import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.evaluation import load_model
from tests.evaluation.problem import linear_model

X = np.random.default_rng(0).random((2, 9, 7, 3), dtype="float32")


@pytest.fixture(scope="module")
def model():
    return linear_model()


def logits(model, x=X):
    return keras.ops.convert_to_numpy(model(keras.ops.convert_to_tensor(x)))


def test_keras_file(model, tmp_path):
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(logits(load_model(tmp_path / "m.keras")), logits(model))
    assert load_model(model) is model


def test_adversarial_model_gives_the_model_that_it_trains(model, tmp_path):
    trainer = kr.AdversarialModel(linear_model(), kr.attacks.FGSM(kr.ThreatModel("Linf", 0.1)))
    trainer.save(tmp_path / "trainer.keras")
    loaded = load_model(tmp_path / "trainer.keras")
    assert not isinstance(loaded, kr.AdversarialModel)
    np.testing.assert_array_equal(logits(loaded), logits(model))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModels are TensorFlow's")
def test_saved_model_by_its_logits(model, tmp_path):
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = [tf.TensorSpec((None, None, None, 3), tf.float32)]
    archive.add_endpoint("serve", lambda x: {"probabilities": tf.nn.softmax(model(x))}, spec)
    archive.add_endpoint("logits", lambda x: {"logits": model(x), "features": model.layers[1](x)}, spec)
    archive.write_out(tmp_path / "served", verbose=False)
    loaded = load_model(tmp_path / "served")
    assert loaded.endpoint == "logits"
    np.testing.assert_allclose(logits(loaded), logits(model), atol=1e-6)
    x_adv = kr.attacks.FGSM(kr.ThreatModel("Linf", 0.1))(loaded, X, np.array([0, 1]))
    np.testing.assert_array_equal(x_adv, kr.attacks.FGSM(kr.ThreatModel("Linf", 0.1))(model, X, np.array([0, 1])))


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow reads it")
def test_saved_model_needs_tensorflow(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ValueError, match="a SavedModel, which runs on the TensorFlow backend only"):
        load_model(tmp_path)


def test_architecture_with_weights(tmp_path):
    built = kr.models.create("vit_tiny", num_classes=3, input_size=32)
    built.save_weights(tmp_path / "w.weights.h5")
    loaded = load_model("vit_tiny", tmp_path / "w.weights.h5", 3, 32)
    for one, two in zip(built.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(one, two)


def test_what_is_no_model(tmp_path):
    (tmp_path / "m.keras").write_bytes(b"no archive")
    for model, message in (
        (tmp_path / "m.keras", "m.keras cannot be read as a .keras file"),
        (tmp_path / "absent.keras", "there is no file"),
        (tmp_path, "model must be a .keras file, the folder of a SavedModel, or the name of a preset"),
        ("convnext_tiny_300ep", "weights must be the path of a file"),
        (3, "model must be a callable"),
    ):
        with pytest.raises(ValueError, match=message):
            load_model(model)
