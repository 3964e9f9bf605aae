import warnings

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.export import load_model
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


def test_compiled_models_are_loaded_without_their_optimizers(tmp_path):
    """As `fit` leaves them, and inside of a trainer."""
    net = linear_model()
    net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    net.fit(X, np.zeros(2), verbose=0)
    net.save(tmp_path / "net.keras")
    trainer = kr.AdversarialModel(net, kr.attacks.FGSM(kr.ThreatModel("Linf", 0.1)))
    trainer.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    trainer.save(tmp_path / "trainer.keras")
    for name in ("net.keras", "trainer.keras"):
        np.testing.assert_array_equal(logits(load_model(tmp_path / name)), logits(net))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModels are TensorFlow's")
def test_saved_model_by_its_logits(model, tmp_path):
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = [tf.TensorSpec((None, None, None, 3), tf.float32)]
    archive.add_endpoint("serve", lambda x: {"probabilities": tf.nn.softmax(model(x))}, spec)
    archive.add_endpoint("logits", lambda x: {"logits": model(x), "features": model.layers[1](x)}, spec)
    archive.write_out(tmp_path / "served", verbose=False)
    loaded = load_model(tmp_path / "served", pixels="0..1")
    assert loaded.endpoint == "logits"
    assert loaded.differentiable is True
    np.testing.assert_allclose(logits(loaded), logits(model), atol=1e-6)
    x_adv = kr.attacks.FGSM(kr.ThreatModel("Linf", 0.1))(loaded, X, np.array([0, 1]))
    np.testing.assert_array_equal(x_adv, kr.attacks.FGSM(kr.ThreatModel("Linf", 0.1))(model, X, np.array([0, 1])))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModels are TensorFlow's")
def test_layers_that_withhold_gradients_are_known_of_an_exported_model(tmp_path):
    inputs = keras.Input((None, None, 3))
    features = kr.layers.MeanSparse()(inputs)
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(features))
    kr.export.export(keras.Model(inputs, outputs), tmp_path / "sparse", resolution=32, verify=False)
    suite = kr.attacks.AutoAttack(kr.ThreatModel("Linf", 0.1)).suite(load_model(tmp_path / "sparse"), 3)
    x = np.random.default_rng(0).random((2, 32, 32, 3), dtype="float32")
    assert any(warning.startswith("Gradients withheld: MeanSparse") for warning in suite.warnings(x, np.array([0, 1])))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModels are TensorFlow's")
@pytest.mark.parametrize("cut", ["stop_gradient", "round"])
def test_saved_model_without_gradients_meets_square_alone(model, tmp_path, cut):
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = [tf.TensorSpec((None, None, None, 3), tf.float32)]
    archive.add_endpoint("logits", lambda x: {"logits": getattr(tf, cut)(model(x) * 1e4)}, spec)
    archive.write_out(tmp_path / "cut", verbose=False)
    loaded = load_model(tmp_path / "cut", pixels="0..1")
    assert loaded.differentiable is False
    suite = kr.evaluation.attack_suites.attack_suite(loaded, 3, kr.ThreatModel("Linf", 0.1), "standard", 2, 0)
    assert list(suite.attacks) == ["square"]


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
        (tmp_path, "model must be the folder of a SavedModel, .*, the name of a preset"),
        ("convnext_tiny_300ep", "weights must be the path of a file"),
        ("Salman2020Do_R5", "its id on RobustBench, .*received 'Salman2020Do_R5'.* Did you mean 'Salman2020Do_R50'"),
        (3, "model must be a callable"),
    ):
        with pytest.raises(ValueError, match=message):
            load_model(model)


def test_preprocessing_goes_on_from_preset_to_artefact(tmp_path):
    """Of a published checkpoint by its name, or of what a model knows, whatever precision its layers had."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = kr.models.create("vit_tiny", 3, 32)
    keras.config.set_dtype_policy("float32")
    model.preprocessing = kr.models.Preprocessing(resolution=64, crop_pct=1.0, interpolation="bilinear")
    for options, expected in (
        ({}, (64, 1.0, "bilinear")),
        ({"resolution": 32, "crop_pct": 0.5}, (32, 0.5, "bilinear")),
        ({"preset": "Wong2020Fast"}, (288, 1.0, "none")),
    ):
        path = tmp_path / f"{len(options)}.keras"
        kr.export.export(model, path, "keras", verify=False, verbose=False, **options)
        known = load_model(path).preprocessing
        assert (known.resolution, known.crop_pct, known.interpolation) == expected


@pytest.mark.parametrize(("form", "suffix"), [("onnx", ".onnx"), ("litert", ".tflite")])
def test_exported_models_are_black_boxes(model, tmp_path, form, suffix):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("exported on TensorFlow")
    pytest.importorskip({"onnx": "onnxruntime", "litert": "ai_edge_litert"}[form])
    path = tmp_path / f"m{suffix}"
    kr.export.export(model, path, form, resolution=32, verify=False, verbose=False)
    loaded = load_model(path)
    assert loaded.differentiable is False
    assert len(loaded.sha256) == 64
    x = np.random.default_rng(0).random((2, 32, 32, 3), dtype="float32")
    np.testing.assert_allclose(logits(loaded, x), logits(model, x), atol=1e-5)


def foreign(tmp_path, suffix, channels_first=False):
    """A classifier of 8-bit pixels that ends in a softmax, as others export it, and its logits for pixels in [0, 1]."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    h = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    h = keras.layers.Dense(3, kernel_initializer="random_normal")(keras.layers.GlobalAveragePooling2D()(h))
    net = keras.Model(inputs, h)
    whole = keras.Model(inputs, keras.layers.Softmax()(h))
    if channels_first:
        turned = keras.Input((3, 32, 32))
        whole = keras.Model(turned, whole(keras.layers.Permute((2, 3, 1))(turned)))
    whole(np.zeros((1, *whole.input_shape[1:]), "float32"))
    path = tmp_path / f"foreign{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converters
        whole.export(path, format={".onnx": "onnx", ".tflite": "litert", "": "tf_saved_model"}[suffix], verbose=False)
    return path, lambda x: logits(net, 255 * x)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="exported on TensorFlow")
@pytest.mark.parametrize(("suffix", "channels_first"), [(".onnx", False), (".onnx", True), (".tflite", False)])
def test_files_of_other_origin(tmp_path, suffix, channels_first):
    pytest.importorskip({".onnx": "onnxruntime", ".tflite": "ai_edge_litert"}[suffix])
    path, expected = foreign(tmp_path, suffix, channels_first)
    with pytest.raises(ValueError, match=r"foreign.* does not tell what it takes: give pixels, '0\.\.1', '0\.\.255'"):
        load_model(path)
    loaded = load_model(path, pixels="0..255")
    x = np.random.default_rng(1).random((1, 32, 32, 3), dtype="float32")
    found, expected = logits(loaded, x), expected(x)
    np.testing.assert_allclose(found - found.mean(), expected - expected.mean(), atol=1e-5)
    assert loaded.differentiable is False


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="exported on TensorFlow")
def test_saved_models_of_other_origin_must_tell_their_pixels(tmp_path):
    path, _ = foreign(tmp_path, "")
    with pytest.raises(ValueError, match="does not tell what it takes: give pixels"):
        load_model(path)
    with pytest.raises(ValueError, match="probabilities"):
        kr.evaluation.evaluate(
            load_model(path, pixels="0..255"), kr.data.photo_crops("val").sample(4), [kr.ThreatModel("Linf", 0.1)], [32]
        )


class OnHost(keras.layers.Layer):
    def __init__(self, function, width):
        super().__init__()
        self.function, self.width = function, width

    def call(self, x, training=False):
        return kr.backend.on_host(self.function, x, (self.width,))


def test_numpy_in_the_middle_of_an_attack():
    outside = OnHost(lambda x: np.stack([x.mean((1, 2, 3)) - 0.5, 0 * x[:, 0, 0, 0]], 1).astype("float32"), 2)
    np.testing.assert_allclose(logits(outside)[:, 0], X.mean((1, 2, 3)) - 0.5, atol=1e-6)
    square = kr.attacks.Square(kr.ThreatModel("Linf", 0.3), n_queries=30)
    x_adv = square(outside, X, np.array([0, 1]))
    assert (logits(outside, x_adv).argmax(1) != [0, 1]).any()
