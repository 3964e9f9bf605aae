"""What casts warning on a robustness figure: each warning provoked on a small model, and none on an ordinary one."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_robust import backend
from keras_robust.attacks import sanity_checks, versions
from keras_robust.attacks.autoattack import NOT_COVERED, AutoAttack
from keras_robust.attacks.versions import ensemble
from keras_robust.layers import MeanSparse
from keras_robust.statistics import Proportion
from keras_robust.threat import ThreatModel

SHAPE = (4, 4, 3)
RNG = np.random.default_rng(0)
X = RNG.uniform(0.1, 0.9, (12, *SHAPE)).astype("float32")
KERNEL = RNG.normal(size=(48, 5)).astype("float32")


def linear(x):
    return ops.matmul(ops.reshape(x, (-1, 48)) - 0.5, ops.convert_to_tensor(KERNEL))


def _warnings(model, version="standard"):
    y = ops.convert_to_numpy(model(ops.convert_to_tensor(X))).argmax(1).astype("int32")
    num_classes = model(ops.convert_to_tensor(X)).shape[1]
    suite = AutoAttack(ThreatModel("Linf", 0.1), version=version, batch_size=12).suite(model, num_classes)
    return [*suite.warnings(X, y)]


def test_none_about_an_ordinary_model():
    assert _warnings(linear) == []


@pytest.mark.parametrize("layer", ["dense", "convolution"])
def test_none_about_an_ordinary_keras_model(layer):
    inputs = keras.Input(SHAPE)
    h = keras.layers.Conv2D(4, 3)(inputs) if layer == "convolution" else inputs
    h = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(h))  # inference mode: neither is active
    outputs = keras.layers.Dense(5)(keras.layers.Flatten()(h))
    assert _warnings(keras.Model(inputs, outputs)) == []


def test_randomised():
    noise = np.random.default_rng(1)

    def model(x):
        return linear(x) + ops.convert_to_tensor(noise.normal(size=(1, 5)).astype("float32"))

    (warning,) = _warnings(model)
    assert warning.startswith("Randomised: 5 calls differ in the logits of 100% of the images")
    assert 'version="rand"' in warning
    assert _warnings(model, "rand") == []


def test_layers_that_withhold_gradients():
    inputs = keras.Input(SHAPE)
    block = keras.Sequential([MeanSparse(), keras.layers.Flatten()])  # layers within layers count
    (warning,) = _warnings(keras.Model(inputs, keras.layers.Dense(5)(block(inputs))))
    assert warning.startswith("Gradients withheld: MeanSparse layers pass none")
    linear.withholding_layers = ("MeanSparse",)  # as what was exported knows it
    try:
        assert _warnings(linear) == [warning]
    finally:
        del linear.withholding_layers
    assert "62.12 %, a stronger attack of others 58.92 %" in warning


def test_optimisation_inside_the_model():
    """A defence that moves each image before it answers."""

    def model(x):
        def loss(x):
            return ops.sum(ops.square(linear(x)), 1), ops.zeros((1,))

        _, _, gradient = backend.input_gradient(loss, x)
        return linear(x + 0.01 * ops.sign(gradient))

    assert "Optimisation inside the model" in {warning.split(":")[0] for warning in _warnings(model)}


def test_probabilities():
    """Refused where gradients are taken through them, and doubted where a black box gives them."""
    with pytest.raises(ValueError, match="model must return logits, not probabilities: each row"):
        _warnings(lambda x: ops.softmax(linear(x)))
    (warning,) = sanity_checks.of_outputs(lambda x: ops.convert_to_numpy(ops.softmax(linear(x))), X)
    assert warning.startswith("Probabilities: the outputs lie in [0, 1] and sum to 1")


def test_zero_gradients_of_quantised_images():
    (warning,) = _warnings(lambda x: linear(ops.round(8 * x) / 8))
    assert warning.startswith("Zero gradients: the gradient of the loss is zero for 100% of the images")


def test_zero_gradients_of_some_images():
    """Where a model is very confident, its softmax has no slope left in float32."""
    confident = X.mean((1, 2, 3)) > np.median(X.mean((1, 2, 3)))

    def model(x):
        large = ops.cast(ops.mean(x, (1, 2, 3)) > float(np.median(X.mean((1, 2, 3)))), "float32")
        return linear(x) + 1000.0 * large[:, None] * ops.one_hot(ops.argmax(linear(x), -1), 5)

    (warning,) = _warnings(model)
    assert confident.mean() == 0.5
    assert "the gradient of the loss is zero for 50% of the images" in warning


def test_gradients_that_are_not_finite():
    # The slope of the root at 0 is infinite, that of what is under it 0: their product is NaN.
    first = ops.one_hot(ops.zeros((1,), "int32"), 5)
    warnings = _warnings(lambda x: linear(x) + ops.sum(ops.sqrt(0.0 * x), (1, 2, 3))[:, None] * first)
    assert any("is NaN or infinite for 100% of the images" in warning for warning in warnings)


def test_batch_norm_in_training_mode():
    def model(x):
        mean = ops.mean(x, axis=0, keepdims=True)
        return linear((x - mean) / ops.sqrt(ops.mean((x - mean) ** 2, axis=0, keepdims=True) + 1e-3))

    warnings = _warnings(model)
    assert any(
        "Batch-dependent" in warning and "batch normalisation in training mode" in warning for warning in warnings
    )


@keras.saving.register_keras_serializable("keras_robust_tests")
class AlwaysTraining(keras.layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=True, mask=mask)


def test_batch_norm_layer_in_training_mode():
    inputs = keras.Input(SHAPE)
    outputs = keras.layers.Dense(5)(keras.layers.Flatten()(AlwaysTraining()(inputs)))
    assert any("Batch-dependent" in warning for warning in _warnings(keras.Model(inputs, outputs)))


def test_square_finds_what_masked_gradients_hide(monkeypatch):
    """Quantised logits: no slope anywhere, and yet small changes are enough."""
    monkeypatch.setitem(versions.VERSIONS, "standard", {"apgd-ce": {"n_iter": 2}, "square": {"n_queries": 100}})

    def model(x):
        return ops.round(4 * linear(x)) / 4

    y = ops.convert_to_numpy(model(ops.convert_to_tensor(X))).argmax(1).astype("int32")
    with pytest.warns(UserWarning, match="gradients") as caught:
        result = AutoAttack(ThreatModel("Linf", 0.1), batch_size=12)(model, X, y)
    messages = [str(warning.message) for warning in caught if warning.category is UserWarning]
    assert tuple(messages) == result.warnings
    assert any(message.startswith("Zero gradients") for message in messages)
    assert any(message.startswith("Square found more: the attack without gradients") for message in messages)
    assert result.accuracy_after["square"] < result.accuracy_after["apgd-ce"]


def test_square_gain_at_the_end_and_in_the_middle():
    assert [*sanity_checks.of_result({"clean": 0.9, "apgd-ce": 0.5, "square": 0.499})] == []
    (warning,) = sanity_checks.of_result({"clean": 0.9, "apgd-ce": 0.5, "square": 0.49})
    assert "lowered the robust accuracy by 1.0%" in warning
    (warning,) = sanity_checks.of_result({"clean": 0.9, "apgd-ce": 0.5, "square": 0.4, "apgd-t": 0.4})
    assert "10.0%" in warning
    assert [*sanity_checks.of_result({"clean": 0.9, "apgd-ce": 0.5})] == []


def test_rising_with_eps():
    assert [*sanity_checks.of_radii({0.1: 0.5, 0.2: 0.5, 0.3: 0.1})] == []
    (warning,) = sanity_checks.of_radii({0.2: 0.55, 0.1: 0.5})
    assert "the robust accuracy is 55.0% at radius 0.2 and 50.0% at the smaller 0.1" in warning


def test_few_classes_fall_back_and_say_so():
    two = lambda x: linear(x)[:, :2]  # noqa: E731
    (warning,) = _warnings(two)
    assert warning.startswith(
        "Few classes: the loss 'targeted-dlr' needs 4 classes, the model has 2; 'targeted-margin'"
    )
    assert len(_warnings(two, "rand")) == 1
    threat = ThreatModel("Linf", 0.1)
    assert ensemble(threat, num_classes=3)["apgd-t"].loss == "targeted-margin"
    assert ensemble(threat, num_classes=4)["apgd-t"].loss == "targeted-dlr"
    assert ensemble(threat, "plus", num_classes=2)["apgd-dlr"].loss == "margin"
    assert ensemble(threat, "plus", num_classes=3)["apgd-dlr"].loss == "dlr"


def test_the_report_can_say_what_is_not_covered():
    assert "adaptive attacks" in NOT_COVERED


def test_a_model_that_gives_one_answer_to_all():
    [warning] = sanity_checks.of_answers(np.array([0, 48, 0]), np.array([12, 24, 12]))
    assert warning.startswith("One answer: all 48 images are classified as 1")
    assert not [*sanity_checks.of_answers(np.array([1, 47, 0]), np.array([12, 24, 12]))]
    assert not [*sanity_checks.of_answers(np.array([0, 48]), np.array([0, 48]))]  # there is but one class


def test_no_better_than_chance_with_its_interval():
    labels = np.array([25, 25, 25, 25])
    robust = {"Linf 4/255": Proportion(25, 100), "L2 1": Proportion(26, 100), "L1 9": Proportion(0, 100)}
    [warning] = sanity_checks.of_chance(robust, labels)
    assert warning.endswith(
        "has 25.0% of the images, and robust accuracy is not above that: Linf 4/255 25.0 % (18-34)."
    )
    assert not [*sanity_checks.of_chance({"a": Proportion(26, 100)}, labels)]


def test_few_images():
    [warning] = sanity_checks.of_sample(48)
    assert "near 50 % is known to 14 points only" in warning
    assert not [*sanity_checks.of_sample(100)]
