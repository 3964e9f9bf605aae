"""SEA over a data set: its figures beside the model's own answers, stopped and gone on with, and what it refuses."""

import json

import keras
import numpy as np
import pytest
from keras import ops

import keras_robust as kr
from keras_robust.segmentation import evaluation as module

THREATS = [kr.ThreatModel("Linf", 2 / 255), kr.ThreatModel("Linf", 8 / 255)]
CLASSES = 3


@pytest.fixture(scope="module")
def net():
    """A model of colours that is right on most pixels."""
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(CLASSES, 3, padding="same")])
    kernel = np.zeros((3, 3, 3, CLASSES), "float32")
    kernel[1, 1] = 20 * np.eye(3)
    kernel[0, 0] = np.random.default_rng(0).normal(0, 2, (3, 3))
    model.set_weights([kernel, np.zeros(CLASSES)])
    return model


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (5, 8, 10, 3)).astype("uint8")
    y = x.argmax(-1)
    y = np.where(rng.random(y.shape) < 0.1, (y + 1) % CLASSES, y)
    return x, np.where(rng.random(y.shape) < 0.1, -1, y).astype("int32")


@pytest.fixture(scope="module")
def report(net, data):
    return kr.segmentation.evaluate(net, *data, THREATS, n_iter=10, batch_size=2, verbose=False)


def test_figures_are_those_of_the_attacks(net, data, report):
    x, y = data
    images = x.astype("float32") / 255
    weights = kr.segmentation.losses.balancing_weights(np.array([(y == k).sum() for k in range(CLASSES)]))

    def accuracy(points):
        answers = ops.convert_to_numpy(net(points)).argmax(-1)
        return np.array([(p == b)[b >= 0].sum() for p, b in zip(answers, y)])

    assert report.clean.right.sum(1).tolist() == accuracy(images).tolist()
    for figures in report.threats:
        right = {}
        for name, attack in kr.segmentation.sea(figures.threat, weights, n_iter=10).items():
            x_adv = attack(net, images, y)
            assert np.abs(x_adv - images).max() <= figures.threat.eps + 1e-6
            right[name] = accuracy(x_adv)
            # In batches of another size a pixel or two may round to another side.
            assert np.abs(figures.attacks[name].right.sum(1) - right[name]).max() <= 2
        worst = np.min([*right.values(), accuracy(images)], axis=0)
        assert figures.worst_pixel_accuracy == pytest.approx(worst.sum() / (y >= 0).sum(), abs=0.01)
        assert figures.worst_mean_iou <= min(counts.mean_iou() for counts in figures.attacks.values())
    small, large = report.threats
    assert large.worst_pixel_accuracy < small.worst_pixel_accuracy < report.clean.pixel_accuracy()


def test_goes_on_where_it_was_stopped(net, data, report, tmp_path, monkeypatch):
    calls = []
    run = module._Evaluation.run

    def stops(self, attack, batch):
        calls.append(batch)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return run(self, attack, batch)

    monkeypatch.setattr(module._Evaluation, "run", stops)
    arguments = {"n_iter": 10, "batch_size": 2, "verbose": False, "out": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        kr.segmentation.evaluate(net, *data, THREATS, **arguments)
    done = len(calls)
    again = kr.segmentation.evaluate(net, *data, THREATS, **arguments)
    assert len(calls) - done == 7 * 3 - 7  # clean and six attacks on three batches, seven of which were kept
    assert again.as_dict() == report.as_dict()
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(report.as_dict()))
    text = (tmp_path / "report.md").read_text()
    assert "SEA, Linf 8/255" in text
    assert (tmp_path / "pictures.png").stat().st_size > 100
    with pytest.raises(ValueError, match=r"holds another evaluation: seed is 1 here and 0 there"):
        kr.segmentation.evaluate(net, *data, THREATS, **arguments, seed=1)
    x, y = data
    with pytest.raises(ValueError, match=r"holds another evaluation: data is"):
        kr.segmentation.evaluate(net, 255 - x, y, THREATS, **arguments)


def test_a_model_of_one_answer_is_told(data):
    x, y = data
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(CLASSES, 1)])
    model.set_weights([np.zeros((1, 1, 3, CLASSES)), np.array([0.0, 9.0, 0.0])])
    found = kr.segmentation.evaluate(model, x, y, THREATS[:1], n_iter=3, verbose=False)
    assert any(text.startswith("One answer: all") and "pixels are classified as 1" in text for text in found.warnings)
    assert any(text.startswith("Zero gradients") for text in found.warnings)
    assert found.threats[0].worst_mean_iou == found.clean.mean_iou()


def test_refused(net, data):
    x, y = data
    with pytest.raises(ValueError, match="threat must be under Linf; received L2 1"):
        kr.segmentation.evaluate(net, x, y, [kr.ThreatModel("L2", 1.0)], verbose=False)
    with pytest.raises(ValueError, match="a mask for each of the 5 images; received 4"):
        kr.segmentation.evaluate(net, x, y[:4], THREATS, verbose=False)
    late = y.copy()
    late[-1] = 255
    with pytest.raises(ValueError, match=r"y must be class indices in \[0, 2\] or -1; received values in \[-1, 255\]"):
        kr.segmentation.evaluate(net, x, late, THREATS, batch_size=2, verbose=False)
    with pytest.raises(ValueError, match="class_names must be 3"):
        kr.segmentation.evaluate(net, x, y, THREATS, class_names=["a"], verbose=False)
