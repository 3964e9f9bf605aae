"""Other people's models: pixels, activations, heads and sizes, each against what the original answers."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_robust as kr
from keras_robust import backend
from keras_robust.model_graph import activation_of, check_pixels, last_operation, takes_bytes

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (3, 32, 32, 3)).astype("uint8")
IMAGES = (PIXELS / 255).astype("float32")


def numpy_of(x):
    return np.asarray(ops.convert_to_numpy(x), "float64")


def softmax(logits):
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def small(*head, first=(), side=32):
    """Rescaling or the like, a convolution, and a head."""
    return keras.Sequential([keras.Input((side, side, 3)), *first, layers.Conv2D(8, 3), *head])


POOL = layers.GlobalAveragePooling2D
HEADS = {
    "activation of a dense layer": lambda: [POOL(), layers.Dense(4, activation="softmax")],
    "softmax layer": lambda: [POOL(), layers.Dense(4), layers.Softmax()],
    "activation layer": lambda: [POOL(), layers.Dense(4), layers.Activation("softmax")],
    "model within the model": lambda: [
        POOL(),
        keras.Sequential([keras.Input((8,)), layers.Dense(4, activation="softmax")]),
    ],
    "convolution and flatten": lambda: [
        POOL(keepdims=True),
        layers.Conv2D(4, 1),
        layers.Flatten(),
        layers.Activation("softmax"),
    ],
    "behind a cast and a dropout": lambda: [
        POOL(),
        layers.Dense(4, activation="softmax"),
        layers.Activation("linear", dtype="float32"),
        layers.Dropout(0.5),
    ],
    "logits": lambda: [POOL(), layers.Dense(4)],
}


@pytest.mark.parametrize("head", HEADS)
def test_logits_of_any_head(head):
    """The softmax of what comes out is what the original says, on 8-bit pixels."""
    net = small(*HEADS[head](), first=[layers.Rescaling(1 / 127.5, -1)])
    before = [w.copy() for w in net.get_weights()]
    model = kr.adapt(net)
    said = numpy_of(net(PIXELS.astype("float32"), training=False))
    ours = numpy_of(model(IMAGES, training=False))
    np.testing.assert_allclose(softmax(ours), said if head != "logits" else softmax(said), atol=1e-5)
    assert activation_of(last_operation(model)) is None
    model.set_weights([0 * weight for weight in model.get_weights()])
    for weight, old in zip(net.get_weights(), before):
        np.testing.assert_array_equal(weight, old)


def test_softmax_operation_and_binary_head():
    inputs = keras.Input((None, None, 3))
    features = ops.mean(layers.Conv2D(4, 3)(inputs), axis=(1, 2))
    net = keras.Model(inputs, ops.softmax(layers.Dense(3)(features)))
    np.testing.assert_allclose(
        softmax(numpy_of(kr.adapt(net, "0..1")(IMAGES))), numpy_of(net(ops.convert_to_tensor(IMAGES))), atol=1e-5
    )
    one = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(features))
    ours = softmax(numpy_of(kr.adapt(one, "0..1")(IMAGES)))
    np.testing.assert_allclose(ours[:, 1:], numpy_of(one(ops.convert_to_tensor(IMAGES))), atol=1e-5)
    with pytest.raises(ValueError, match="4 independent sigmoids"):
        kr.adapt(keras.Model(inputs, layers.Dense(4, activation="sigmoid")(features)), "0..1")


MODES = {  # what keras.applications document of preprocess_input: mode -> on pixels in [0, 255]
    "VGG16": lambda x: x[..., ::-1] - np.array([103.939, 116.779, 123.68]),
    "MobileNetV2": lambda x: x / 127.5 - 1,
    "DenseNet121": lambda x: (x / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225]),
    "EfficientNetB0": lambda x: x,
}


@pytest.mark.parametrize("name", MODES)
def test_pixels_of_applications(name):
    """By a net that gives its input back, averaged, against the documented formulas."""
    inputs = keras.Input((None, None, 3))
    net = keras.Model(inputs, POOL()(inputs))
    ours = numpy_of(kr.adapt(net, f"applications:{name}")(IMAGES))
    np.testing.assert_allclose(ours, MODES[name](PIXELS.astype("float64")).mean((1, 2)), rtol=1e-4, atol=1e-4)


def test_pixels_are_told_or_asked_for():
    net = small(POOL(), layers.Dense(3), first=[layers.Rescaling(1 / 255)])
    assert kr.adapt(net).get_layer("normalize").std == pytest.approx((1 / 255,) * 3)
    with pytest.raises(ValueError, match=r"pixels must be what the model tells, .* received '-1\.\.1'"):
        kr.adapt(net, "-1..1")
    bare = small(POOL(), layers.Dense(3))
    with pytest.raises(
        ValueError, match=r"pixels must be given, as '.*' does not tell what it takes: '0\.\.1', '0\.\.255'"
    ):
        kr.adapt(bare)
    for pixels in ("0-255", "applications:ResNet51", (1, 2, 3), 7):
        with pytest.raises(ValueError, match="pixels"):
            kr.adapt(bare, pixels)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    want = numpy_of(bare(ops.convert_to_tensor(((IMAGES - mean) / std).astype("float32"))))
    np.testing.assert_allclose(numpy_of(kr.adapt(bare, (mean, std))(IMAGES)), want, atol=1e-5)


def test_scaling_of_ones_own_is_not_misread():
    """`255 * inputs` before a net for 8-bit pixels makes a model for [0, 1], which passes; augmentation is known."""
    net = small(POOL(), layers.Dense(3), first=[layers.Rescaling(1 / 255)])
    inputs = keras.Input((32, 32, 3))
    for scaled in (255 * inputs, layers.Lambda(lambda x: 255 * x, output_shape=(32, 32, 3))(inputs)):
        wrapped = keras.Model(inputs, net(scaled))
        assert not takes_bytes(wrapped)
        check_pixels(wrapped)
    flips = keras.Sequential([keras.Input((32, 32, 3)), layers.RandomFlip()])
    assert takes_bytes(keras.Model(inputs, net(flips(inputs))))
    assert takes_bytes(net)


def test_the_original_stays_as_it_was():
    inputs = keras.Input((32, 32, 3))
    net = keras.Model(inputs, layers.Dense(3)(Mean((1, 2))(layers.Conv2D(4, 3)(inputs))), name="mine")
    model = kr.adapt(net, "0..1")
    assert (net.name, model.name) == ("mine", "mine")
    assert net.layers[-1].units == 3


def test_class_names_are_kept_with_the_head():
    own = kr.models.create("vit_tiny", num_classes=3, input_size=32)
    kr.models.set_class_names(own, ["dog", "cat", "ant"])
    assert kr.models.class_names(kr.adapt(own)) == ("dog", "cat", "ant")
    assert kr.models.class_names(kr.adapt(own, num_classes=3)) is None


def test_models_by_name(tmp_path):
    """Of files and libraries; a head stays where it tells as many classes apart."""
    path = str(tmp_path / "net.keras")
    small(POOL(), layers.Dense(1, activation="sigmoid"), first=[layers.Rescaling(1 / 255)]).save(path)
    nets = [kr.models.adapted(path, classes).get_layer("net") for classes in (None, 2, 3)]
    assert ["head" in [layer.name for layer in net.layers] for net in nets] == [False, False, True]
    bare = str(tmp_path / "bare.keras")
    net = small(POOL(), layers.Dense(3, activation="softmax"))
    net.save(bare)
    loaded = kr.export.load_model(bare, pixels="0..255")
    want = numpy_of(net(ops.convert_to_tensor(PIXELS.astype("float32"))))
    np.testing.assert_allclose(softmax(numpy_of(loaded(IMAGES))), want, atol=1e-5)
    for name in ("applications:MobileNetV2", "vit_tiny"):
        with pytest.raises(ValueError, match=r"pixels is for files of other origin"):
            kr.export.load_model(name, pixels="0..1")
    with pytest.raises(ValueError, match="pixels must be left out for applications:MobileNetV2"):
        kr.models.adapted("applications:MobileNetV2", pixels="0..1", pretrained=False)
    with pytest.raises(ValueError, match=r"applications: with one of .*Did you mean 'MobileNetV2'"):
        kr.models.adapted("applications:MobilNetV2", pretrained=False)
    with pytest.raises(FileNotFoundError, match=r"absent\.keras"):
        kr.models.adapted("absent.keras")


def test_what_cannot_be_downloaded(monkeypatch):
    """Keras raises a bare Exception."""

    def without_network(weights):
        raise Exception("URL fetch failure on https://host/net.h5: None -- Name or service not known")

    monkeypatch.setattr(keras.applications, "MobileNetV2", without_network)
    with pytest.raises(OSError, match=r"applications:MobileNetV2 cannot be had: URL fetch failure on https://host"):
        kr.models.adapted("applications:MobileNetV2")


def test_size_is_left_open_where_the_net_allows():
    assert kr.adapt(small(POOL(), layers.Dense(3)), "0..1").input_shape == (None, None, None, 3)
    assert kr.adapt(small(layers.Flatten(), layers.Dense(3)), "0..1").input_shape == (None, 32, 32, 3)


class Mean(layers.Layer):
    """A layer that cannot be made again: it has an argument and tells no configuration."""

    def __init__(self, axes):
        super().__init__()
        self.axes = axes

    def call(self, x):
        return ops.mean(x, axis=self.axes)


def test_a_layer_without_a_configuration():
    net = small(Mean((1, 2)), layers.Dense(3))
    model = kr.adapt(net, "0..1")
    assert model.input_shape == (None, 32, 32, 3)
    np.testing.assert_array_equal(numpy_of(model(IMAGES)), numpy_of(net(ops.convert_to_tensor(IMAGES))))


class Subclassed(keras.Model):
    def __init__(self, activation=None):
        super().__init__()
        self.parts = [layers.Conv2D(4, 3), POOL(), layers.Dense(3, activation=activation)]

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def test_subclassed_models():
    net = Subclassed()
    model = kr.adapt(net, "0..255")
    np.testing.assert_allclose(
        numpy_of(model(IMAGES)), numpy_of(net(ops.convert_to_tensor(PIXELS.astype("float32")))), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(ValueError, match="probabilities=True"):
        kr.adapt(Subclassed("softmax"), "0..255")
    net = Subclassed("softmax")
    model = kr.adapt(net, "0..1", probabilities=True)
    np.testing.assert_allclose(
        softmax(numpy_of(model(IMAGES))), numpy_of(net(ops.convert_to_tensor(IMAGES))), atol=1e-5
    )
    assert kr.adapt(Subclassed(), "0..1", num_classes=7).output_shape == (None, 7)


@pytest.mark.parametrize("head", HEADS)
def test_a_new_head(head):
    model = kr.adapt(small(*HEADS[head]()), "0..1", num_classes=2, class_names=["cat", "dog"])
    assert model.output_shape == (None, 2)
    assert kr.models.class_names(model) == ("cat", "dog")


def test_heads_of_maps_and_tokens():
    assert kr.adapt(small(), "0..1", num_classes=5).output_shape == (None, 5)
    assert kr.adapt(small(), "0..1", num_classes=5, pooling="max").output_shape == (None, 5)
    with pytest.raises(ValueError, match=r"must return one score per class, .*num_classes= gives it a head"):
        kr.adapt(small(), "0..1")
    tokens = small(layers.Reshape((900, 8)))
    with pytest.raises(ValueError, match="pooling must be 'token' or 'avg'"):
        kr.adapt(tokens, "0..1", num_classes=5)
    assert kr.adapt(tokens, "0..1", num_classes=5, pooling="token").output_shape == (None, 5)


def test_channels_first():
    inputs = keras.Input((3, 32, 32))
    net = keras.Model(inputs, layers.Dense(3)(ops.mean(inputs, axis=(2, 3))))
    want = numpy_of(net(ops.convert_to_tensor(IMAGES.transpose(0, 3, 1, 2))))
    np.testing.assert_allclose(numpy_of(kr.adapt(net, "0..1")(IMAGES)), want, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="modules of PyTorch run on PyTorch")
def test_modules_of_pytorch():
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 5)
    ).eval()
    normalized = (torch.tensor(IMAGES) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    want = net(normalized.permute(0, 3, 1, 2).to(next(net.parameters()).device)).detach().cpu().numpy()
    for given in (net, layers.TorchModuleWrapper(net)):
        np.testing.assert_allclose(numpy_of(kr.adapt(given, "imagenet")(IMAGES)), want, rtol=1e-4, atol=1e-5)


def test_trains_attacks_and_saves(tmp_path):
    net = small(POOL(), layers.Dense(4, activation="softmax"), first=[layers.Rescaling(1 / 255)])
    model = kr.adapt(net)
    threat, y = kr.ThreatModel("Linf", 2 / 255), np.array([0, 1, 2])
    trainer = kr.AdversarialModel(model, kr.attacks.APGD(threat, n_iter=2))
    trainer.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    trainer.fit(IMAGES, y, verbose=0)
    photos = kr.data.photo_crops("val", 1).sample(4)
    photos.class_names, photos.labels = ("a", "b", "c", "d"), np.arange(4)
    kr.models.set_class_names(model, photos.class_names)
    report = kr.evaluation.evaluate(
        model, photos, [threat], [32, 48], [kr.attacks.PGD(threat, n_iter=1)], verbose=False
    )
    assert report.n_examples == 4
    x_adv = numpy_of(kr.attacks.APGD(threat, n_iter=3)(model, IMAGES, y))
    assert 0 < np.abs(x_adv - IMAGES).max() <= 2 / 255 + 1e-6
    model.save(tmp_path / "adapted.keras")
    again = keras.saving.load_model(tmp_path / "adapted.keras")
    np.testing.assert_array_equal(numpy_of(again(IMAGES)), numpy_of(model(IMAGES)))


RAW = {
    "ends in a softmax": lambda: small(POOL(), layers.Dense(4, activation="softmax")),
    "sums to 1": lambda: Subclassed("softmax"),
    r"rescaling of pixels in \[0, 255\]": lambda: small(POOL(), layers.Dense(4), first=[layers.Rescaling(1 / 255)]),
}


@pytest.mark.parametrize("reason", RAW)
def test_raw_models_are_refused_with_the_line_that_mends_them(reason):
    """By attacks, AutoAttack, evaluation and the trainer: a softmax or a wrong range makes models look robust."""
    model, threat, y = RAW[reason](), kr.ThreatModel("Linf", 2 / 255), np.array([0, 1, 2])
    calls = [
        lambda: kr.attacks.PGD(threat, n_iter=1)(model, IMAGES, y),
        lambda: kr.attacks.AutoAttack(threat, "short")(model, IMAGES, y),
        lambda: kr.evaluation.evaluate(
            model, kr.data.photo_crops("val", 1), [threat], [32], [kr.attacks.PGD(threat, n_iter=1)], verbose=False
        ),
    ]
    if reason != "sums to 1":  # which the trainer does not take: it has no output shape
        calls.append(lambda: kr.AdversarialModel(model, kr.attacks.PGD(threat, n_iter=1)))
    for call in calls:
        with pytest.raises(ValueError, match=rf"(?s)model must .*{reason}.*kr\.adapt"):
            call()


def test_a_subclassed_softmax_inside_of_a_functional_model_is_refused():
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, Subclassed("softmax")(inputs))
    with pytest.raises(ValueError, match=r"sums to 1.*kr\.adapt"):
        kr.AdversarialModel(model, kr.attacks.PGD(kr.ThreatModel("Linf", 0.1), n_iter=1))


def test_keras_hub():
    hub = pytest.importorskip("keras_hub")
    net = hub.models.ResNetBackbone([64], [7], [64] * 3, [1] * 3, [1, 2, 2], "basic_block")
    converter = hub.layers.ImageConverter(image_size=(64, 64), scale=[1 / 60, 1 / 50, 1 / 40], offset=[-2.0, -1.5, 0.1])
    preprocessor = hub.models.ImageClassifierPreprocessor(image_converter=converter)
    task = hub.models.ImageClassifier(net, num_classes=4, preprocessor=preprocessor, activation="softmax")
    pixels = RNG.integers(0, 256, (2, 64, 64, 3)).astype("float32")
    said = numpy_of(task(ops.convert_to_tensor(ops.convert_to_numpy(converter(pixels)))))
    np.testing.assert_allclose(softmax(numpy_of(kr.adapt(task)((pixels / 255).astype("float32")))), said, atol=1e-5)
    assert kr.adapt(task, num_classes=7).output_shape == (None, 7)
    assert kr.adapt(net, "0..255", num_classes=3).output_shape == (None, 3)


def test_gradients_reach_the_pixels_of_what_is_adapted():
    """And are those of the original, by finite differences."""
    net = small(POOL(), layers.Dense(3), first=[layers.Rescaling(1 / 255)])
    model = kr.adapt(net)

    def loss(x):
        total = ops.sum(model(x) ** 2)
        return total, total

    x = ops.convert_to_tensor(IMAGES[:1])
    _, _, gradient = backend.input_gradient(loss, x)
    step = np.zeros_like(IMAGES[:1])
    step[0, 10, 12, 1] = 0.05
    up, down = (float(numpy_of(loss(ops.convert_to_tensor(IMAGES[:1] + s))[0])) for s in (step, -step))
    assert float(numpy_of(gradient)[0, 10, 12, 1]) == pytest.approx((up - down) / 0.1, rel=0.02, abs=1e-5)
