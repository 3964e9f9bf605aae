import keras
import numpy as np
import pytest
from keras import ops

from keras_robust import backend, losses
from keras_robust.segmentation.losses import CrossEntropy, balancing_weights, class_counts, jensen_shannon

from . import reference_attack as reference

RNG = np.random.default_rng(0)
LOGITS = (3 * RNG.normal(size=(4, 3, 5, 4))).astype("float32")
LABELS = RNG.integers(-1, 4, (4, 3, 5)).astype("int32")
WEIGHTS = (0.1, 0.5, 0.0, 0.4)
CASES = {
    "ce": (losses.cross_entropy, reference.cross_entropy),
    "balanced": (CrossEntropy(WEIGHTS), lambda z, y: reference.cross_entropy(z, y, WEIGHTS)),
    "masked": (CrossEntropy(only_correct=True), lambda z, y: reference.cross_entropy(z, y, None, True)),
    "both": (CrossEntropy(WEIGHTS, True), lambda z, y: reference.cross_entropy(z, y, WEIGHTS, True)),
    "js": (jensen_shannon, reference.jensen_shannon),
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_beside_numpy(case):
    ours, theirs = CASES[case]
    labels = ops.convert_to_tensor(LABELS)
    values, _, gradient = backend.input_gradient(lambda z: (ours(z, labels), labels), ops.convert_to_tensor(LOGITS))
    expected = [theirs(z.astype("float64"), y) for z, y in zip(LOGITS, LABELS)]
    np.testing.assert_allclose(ops.convert_to_numpy(values), [value for value, _ in expected], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(gradient), [g for _, g in expected], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_reference_gradients_by_finite_differences(case):
    _, loss = CASES[case]
    z, y, h = LOGITS[0].astype("float64"), LABELS[0], 1e-6
    numerical = np.zeros_like(z)
    for place in np.ndindex(z.shape):
        change = np.zeros_like(z)
        change[place] = h
        numerical[place] = (loss(z + change, y)[0] - loss(z - change, y)[0]) / (2 * h)
    np.testing.assert_allclose(loss(z, y)[1], numerical, atol=1e-7)


@pytest.mark.parametrize("loss", [losses.dlr, losses.margin])
def test_losses_of_classification_are_means_over_pixels(loss):
    values = ops.convert_to_numpy(loss(ops.convert_to_tensor(LOGITS), ops.convert_to_tensor(LABELS)))
    for z, y, value in zip(LOGITS, LABELS, values):
        of_pixels = ops.convert_to_numpy(loss(ops.convert_to_tensor(z[y >= 0]), ops.convert_to_tensor(y[y >= 0])))
        np.testing.assert_allclose(value, of_pixels.mean(), rtol=1e-5)


def test_what_does_not_count_changes_nothing():
    other = np.where((LABELS < 0)[..., None], 100 * RNG.normal(size=LOGITS.shape).astype("float32"), LOGITS)
    for loss, _ in [*CASES.values(), (losses.correct, None)]:
        first, second = (
            ops.convert_to_numpy(loss(ops.convert_to_tensor(z), ops.convert_to_tensor(LABELS))) for z in (LOGITS, other)
        )
        np.testing.assert_array_equal(first, second)
        without = loss(ops.convert_to_tensor(LOGITS), ops.full(LABELS.shape, -1, dtype="int32"))
        np.testing.assert_array_equal(ops.convert_to_numpy(without), float(loss is losses.correct))


def test_share_of_right_pixels():
    logits = LOGITS.copy()
    logits[0, 0, 0] = np.nan
    share = ops.convert_to_numpy(losses.correct(ops.convert_to_tensor(logits), ops.convert_to_tensor(LABELS)))
    expected = [(np.where(np.isnan(z).any(-1), -2, z.argmax(-1)) == y)[y >= 0].mean() for z, y in zip(logits, LABELS)]
    np.testing.assert_allclose(share, expected, rtol=1e-6)


@pytest.mark.parametrize("sure", [30.0, 500.0])
def test_finite_where_the_model_is_sure(sure):
    logits = np.array([[[[sure, 0.0], [-sure, 0.0]]]], "float32")
    labels = ops.zeros((1, 1, 2), "int32")
    values, _, gradient = backend.input_gradient(
        lambda z: (jensen_shannon(z, labels), labels), ops.convert_to_tensor(logits)
    )
    np.testing.assert_allclose(ops.convert_to_numpy(values), np.log(2) / 2, rtol=1e-5)
    assert np.isfinite(ops.convert_to_numpy(gradient)).all()


def test_weights():
    counts = class_counts(LABELS, 5)
    assert counts.tolist() == [(k == LABELS).sum() for k in range(5)]
    weights = balancing_weights(counts)
    assert weights[4] == 0
    assert sum(weights) == pytest.approx(1)
    np.testing.assert_allclose(np.array(weights[:4]) * counts[:4], weights[0] * counts[0])
    loss = CrossEntropy(weights, True)
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert repr(restored) == repr(loss)
    for bad in ((1.0, -1.0), (0.0, 0.0), (np.nan, 1.0)):
        with pytest.raises(ValueError, match="class_weights must be finite numbers >= 0"):
            CrossEntropy(bad)
    with pytest.raises(ValueError, match="one for each of the 4 classes; received 2"):
        CrossEntropy((1.0, 2.0))(ops.convert_to_tensor(LOGITS), ops.convert_to_tensor(LABELS))
