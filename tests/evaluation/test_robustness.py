import keras
import numpy as np
import pytest
from scipy.stats import binomtest

import keras_robust as kr
from keras_robust.data import Source
from keras_robust.evaluation import evaluate, wilson_interval

WEIGHTS = np.array([0.7, -0.4, 0.1], np.float32)


@pytest.mark.parametrize(("successes", "n"), [(0, 100), (100, 100), (1, 7), (137, 200)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_interval_is_that_of_scipy(successes, n, confidence):
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    np.testing.assert_allclose(wilson_interval(successes, n, confidence), expected, atol=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_interval_of_nothing(successes, n):
    with pytest.raises(ValueError, match=f"received {successes} of {n}"):
        wilson_interval(successes, n)


class Flat(Source):
    """Images of one colour each, in the middle of the pixel range, where no attack meets black or white."""

    class_names = ("no", "yes")

    def __init__(self, n, side=16):
        rng = np.random.default_rng(0)
        self.colours = rng.integers(100, 156, (n, 3)).astype(np.uint8)
        self.labels = rng.integers(0, 2, n)
        self.side = side

    def image(self, index):
        return np.tile(self.colours[index], (self.side, self.side, 1))

    def margins(self):
        """Logit of the label minus the other's, in the model below."""
        score = (self.colours / 255 - 0.5) @ WEIGHTS
        return np.where(self.labels == 1, score, -score)


@pytest.fixture(scope="module")
def linear_model():
    inputs = keras.Input((None, None, 3))
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inputs))
    model = keras.Model(inputs, outputs)
    model.layers[-1].set_weights([np.stack([0 * WEIGHTS, WEIGHTS], 1), np.array([0, -0.5 * WEIGHTS.sum()])])
    return model


def attacks(**options):
    return [kr.attacks.APGD(kr.ThreatModel("L2", 9.0), n_iter=3, returns="misclassified", **options)]


def test_linear_model_has_the_robustness_of_its_weights(linear_model):
    source = Flat(60)
    threats = [kr.ThreatModel("Linf", 0.01), kr.ThreatModel("L2", 0.2)]
    resolutions = [8, 16]
    report = evaluate(linear_model, source, threats, resolutions, attacks(), batch_size=25, verbose=False)
    margins = source.margins()
    for resolution in resolutions:
        # No perturbation changes the margin by more than eps times the dual norm of its gradient, weights / pixels.
        reach = {
            "Linf": 0.01 * np.abs(WEIGHTS).sum(),
            "L2": 0.2 * np.linalg.norm(WEIGHTS) / resolution,
        }
        for threat in threats:
            result = report[threat, resolution]
            assert result.n_examples == 60
            assert 0.2 < np.mean(margins > reach[threat.norm]) < np.mean(margins > 0) < 1
            np.testing.assert_allclose(result.clean_accuracy, np.mean(margins > 0))
            np.testing.assert_allclose(result.robust_accuracy, np.mean(margins > reach[threat.norm]))
            assert result.robust_interval == wilson_interval(int((margins > reach[threat.norm]).sum()), 60)


def test_an_image_once_broken_stays_broken(linear_model):
    class Useless(kr.attacks.APGD):
        def __call__(self, model, x, y):
            return x

    strong, threat = attacks()[0], kr.ThreatModel("Linf", 0.01)
    useless = Useless(threat)
    report = evaluate(linear_model, Flat(20), [threat], [8], [useless, strong, useless], verbose=False)
    accuracies = report.results[0].accuracy_after
    assert list(accuracies) == ["clean", "1 useless-ce", "2 apgd-ce", "3 useless-ce"]
    clean, first, second, third = accuracies.values()
    assert clean == first > second == third


def test_padding_and_batch_size_do_not_matter(linear_model):
    threat = kr.ThreatModel("Linf", 0.01)
    one, two = (
        evaluate(linear_model, Flat(23), [threat], [8], attacks(), batch_size=size, verbose=False)[threat, 8]
        for size in (7, 100)
    )
    for stage in one.correct:
        np.testing.assert_array_equal(one.correct[stage], two.correct[stage])


def test_examples_are_drawn_by_the_seed(linear_model):
    threat, source = kr.ThreatModel("Linf", 0.01), Flat(40)

    def clean(seed):
        report = evaluate(linear_model, source, [threat], [8], attacks(), n_examples=15, seed=seed, verbose=False)
        assert report.settings["n_examples"] == 15
        return report[threat, 8].correct["clean"]

    np.testing.assert_array_equal(clean(1), clean(1))
    assert not np.array_equal(clean(1), clean(2))


def test_no_batch_of_another_shape_reaches_the_attack(linear_model):
    shapes = []

    class Spy(kr.attacks.APGD):
        def __call__(self, model, x, y):
            shapes.append(x.shape)
            return super().__call__(model, x, y)

    threat = kr.ThreatModel("Linf", 0.01)
    evaluate(linear_model, Flat(23), [threat], [8], [Spy(threat, n_iter=1)] * 2, batch_size=5, verbose=False)
    assert set(shapes) == {(5, 8, 8, 3)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threats": []}, "threats must be a sequence"),
        ({"resolutions": 32}, "resolutions must be a sequence"),
        ({"attack": ()}, "attack must be a sequence"),
        ({"n_examples": 6}, "n_examples must be at most the dataset's 5 images; received 6"),
        ({"n_examples": 0}, "n_examples must be an integer >= 1"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1"),
    ],
)
def test_bad_arguments(linear_model, changes, message):
    threat = kr.ThreatModel("Linf", 0.01)
    arguments = {"threats": [threat], "resolutions": [8], "attack": attacks(), **changes}
    with pytest.raises(ValueError, match=message):
        evaluate(linear_model, Flat(5), verbose=False, **arguments)
