"""Adversarial training on dense labels, with and without an auxiliary head."""

import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops

import keras_robust as kr
from keras_robust.segmentation import training
from keras_robust.segmentation.losses import CrossEntropy

from . import reference_attack as reference
from .conftest import CLASSES

THREAT = kr.ThreatModel("Linf", 4 / 255)
PGD = kr.attacks.PGD(THREAT, n_iter=2, step_size=0.01, returns="last")
QUICK = kr.attacks.PGD(THREAT, n_iter=2, step_size=0.01, returns="misclassified")


@pytest.fixture(scope="module")
def data():
    """Images whose colours tell the classes of their quarters, 32 x 32, and labels of which some do not count."""
    rng = np.random.default_rng(0)
    colours = np.array([[0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.2, 0.8], [0.7, 0.7, 0.1]])
    labels = rng.integers(0, CLASSES, (8, 2, 2)).repeat(16, 1).repeat(16, 2)
    x = (colours[labels] + rng.normal(0, 0.02, (8, 32, 32, 3))).clip(0, 1)
    return x.astype("float32"), np.where(rng.random(labels.shape) < 0.1, -1, labels).astype("int32")


@pytest.fixture
def small():
    """A net of few layers from pixels to the classes of pixels."""
    inputs = keras.Input((None, None, 3))
    h = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="features")(inputs)
    return keras.Model(inputs, keras.layers.Conv2D(CLASSES, 1, name="head")(h))


def with_second_head(net):
    h = net.get_layer("features").output
    return keras.Model(net.input, [net.output, keras.layers.Conv2D(CLASSES, 3, padding="same")(h)])


def test_objective_is_the_sum_over_the_heads():
    rng = np.random.default_rng(0)
    main, auxiliary = (rng.normal(size=(3, 4, 5, CLASSES)).astype("float32") for _ in range(2))
    labels = rng.integers(-1, CLASSES, (3, 4, 5)).astype("int32")
    weights = (0.5, 1.0, 2.0, 1.0)
    loss = kr.segmentation.PixelCrossEntropy(weights, auxiliary_weight=0.3)
    parts = [
        np.mean([reference.cross_entropy(z, y, weights)[0] for z, y in zip(each, labels)]) for each in (main, auxiliary)
    ]
    both = loss(labels, (ops.convert_to_tensor(main), ops.convert_to_tensor(auxiliary)))
    assert float(both) == pytest.approx(parts[0] + 0.3 * parts[1], rel=1e-5)
    assert float(loss(labels, ops.convert_to_tensor(main))) == pytest.approx(parts[0], rel=1e-5)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert float(again(labels, main)) == float(loss(labels, main))


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64:UserWarning")  # Keras' MeanIoU asks JAX for it
def test_trains_both_heads(small, data, tmp_path):
    x, y = data
    model = with_second_head(small)
    loss = kr.segmentation.PixelCrossEntropy()
    trainer = kr.AdversarialModel(model, PGD, QUICK, objective=loss, ema_decay=0.9, diagnostics=True)
    mean_iou = keras.metrics.MeanIoU(CLASSES, ignore_class=-1, sparse_y_pred=False, name="mean_iou")
    trainer.compile(keras.optimizers.AdamW(2e-2), loss, metrics=[mean_iou])
    before = {w.path: np.array(ops.convert_to_numpy(w)) for w in model.trainable_weights}
    history = trainer.fit(x, y, batch_size=4, epochs=6, verbose=0).history
    assert np.mean(history["loss"][-2:]) < 0.9 * history["loss"][0]
    still = [path for w in model.trainable_weights if np.array_equal(before[path := w.path], ops.convert_to_numpy(w))]
    assert not still
    logs = trainer.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    # What is logged, from the model's own answers.
    predictions = ops.convert_to_numpy(small(x)).argmax(-1)
    ious = []
    for k in range(CLASSES):
        counts = y >= 0
        union = ((predictions == k) | (y == k)) & counts
        ious.append((((predictions == k) & (y == k)).sum() / union.sum()) if union.any() else np.nan)
    assert logs["mean_iou"] == pytest.approx(np.nanmean(ious), abs=2e-3)
    shares = [
        [(p == b)[b >= 0].mean() for p, b in zip(ops.convert_to_numpy(small(each)).argmax(-1), y)]
        for each in (x, trainer.validation_attack(small, x, y))
    ]
    assert logs["robust_accuracy"] == pytest.approx(np.min(shares, 0).mean(), abs=1e-2)
    assert {"attack_gain", "zero_gradients"} <= set(logs)
    trainer.save(tmp_path / "trainer.keras")
    again = keras.saving.load_model(tmp_path / "trainer.keras")
    np.testing.assert_array_equal(*(ops.convert_to_numpy(each.model(x[:1])[0]) for each in (trainer, again)))


def test_trains_every_weight_of_upernet(segmenter, data):
    """Of both heads and the backbone, in a compiled step."""
    x, y = data
    model = kr.segmentation.with_auxiliary_head(segmenter)
    loss = kr.segmentation.PixelCrossEntropy()
    trainer = kr.AdversarialModel(model, kr.attacks.FGSM(THREAT), objective=loss)
    trainer.compile(keras.optimizers.AdamW(2e-2), loss)
    before = {w.path: np.array(ops.convert_to_numpy(w)) for w in model.trainable_weights}
    losses = trainer.fit(x, y, batch_size=4, epochs=8, verbose=0).history["loss"]
    assert np.mean(losses[-2:]) < 0.85 * losses[0]
    still = [path for w in model.trainable_weights if np.array_equal(before[path := w.path], ops.convert_to_numpy(w))]
    assert not still


@pytest.mark.once
def test_a_stopped_run_goes_on_to_the_same_weights(data, tmp_path, monkeypatch):
    x, y = data
    pairs = [((255 * image).astype("uint8"), mask) for image, mask in zip(x[:4], y)]
    recipe = kr.segmentation.SegmentationRecipe(
        "tiny", CLASSES, (32, 32), 2, 1, 2, 1e-2, 0.01, drop_path_rate=0.2, layer_scale_init=0.5, n_iter=0
    )
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    save = training.CheckpointFolder.save

    def saves(folder, arrays, step, info):
        """And keeps what a run leaves that is killed after its first epoch."""
        save(folder, arrays, step, info)
        if not stopped.exists():
            shutil.copytree(whole, stopped)

    monkeypatch.setattr(training.CheckpointFolder, "save", saves)
    weights = [kr.segmentation.train(recipe, pairs, folder, verbose=0).get_weights() for folder in (whole, stopped)]
    for ours, theirs in zip(*weights):
        np.testing.assert_array_equal(ours, theirs)
    losses = [json.loads((folder / "history.json").read_text())["loss"] for folder in (whole, stopped)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2
    monkeypatch.setattr(kr.AdversarialModel, "fit", None)
    for ours, theirs in zip(kr.segmentation.train(recipe, pairs, whole).get_weights(), weights[0]):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="holds another run: seed is 1 here and 0 there"):
        kr.segmentation.train(replace(recipe, seed=1), pairs, whole)
    with pytest.raises(ValueError, match="holds another run: pairs is "):
        kr.segmentation.train(recipe, pairs[::-1], whole)


@pytest.mark.once
def test_what_a_run_is_known_by(data, tmp_path, monkeypatch):
    """The bytes of weights, images and masks, not what their files are called, nor their number."""
    monkeypatch.setattr(training, "create", lambda *args, **options: pytest.fail("trains"))
    monkeypatch.setattr(training.keras.saving, "load_model", lambda path: "the finished model")
    recipe = kr.segmentation.SegmentationRecipe("tiny", CLASSES, (32, 32), 2, 1, 2, 1e-2, 0.01, n_iter=0)
    pairs = list(zip(*data))
    weights, out = tmp_path / "robust.safetensors", tmp_path / "out"
    weights.write_bytes(b"first")
    out.mkdir()
    (out / training.MODEL).touch()
    assert kr.segmentation.train(recipe, pairs, out, weights) == "the finished model"
    moved = weights.rename(tmp_path / "moved.safetensors")
    assert kr.segmentation.train(recipe, pairs, out, moved) == "the finished model"
    moved.write_bytes(b"other")
    with pytest.raises(ValueError, match="holds another run: backbone is "):
        kr.segmentation.train(recipe, pairs, out, moved)
    moved.write_bytes(b"first")
    other = [*pairs[:-1], (pairs[-1][0], np.roll(pairs[-1][1], 1, axis=0))]
    with pytest.raises(ValueError, match="holds another run: pairs is "):
        kr.segmentation.train(recipe, other, out, moved)
    with pytest.raises(ValueError, match=r"backbone must be a file with weights; received .*robust\.safetensors"):
        kr.segmentation.train(recipe, pairs, out, weights)


def test_without_radius_it_is_plain_training(data):
    """The weights of Keras' own training, bit for bit, of a model with one head."""
    x, y = data

    def net():
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Conv2D(8, 3, padding="same", activation="relu"), keras.layers.Conv2D(CLASSES, 1)]
        return keras.Sequential([keras.Input((None, None, 3)), *layers])

    plain, inner = net(), net()
    still = kr.attacks.PGD(kr.ThreatModel("Linf", 0.0), n_iter=2, step_size=0.0, returns="last")
    for trainer in (plain, kr.AdversarialModel(inner, still)):
        trainer.compile(keras.optimizers.SGD(0.1), kr.segmentation.PixelCrossEntropy((1.0, 2.0, 1.0, 1.0)))
        trainer.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    for ours, theirs in zip(inner.get_weights(), plain.get_weights()):
        np.testing.assert_array_equal(ours, theirs)


def test_refused(small, data):
    x, y = data
    with pytest.raises(
        ValueError, match=r"objective must be one that takes the outputs of auxiliary heads, as model has 2"
    ):
        kr.AdversarialModel(with_second_head(small), PGD)
    trainer = kr.AdversarialModel(small, PGD)
    trainer.compile("sgd", kr.segmentation.PixelCrossEntropy())
    with pytest.raises(ValueError, match=r"or -1 for pixels that do not count; received values in \[-1, 255\]"):
        trainer.fit(x, np.where(y == 0, 255, y), verbose=0)
    with pytest.raises(ValueError, match=r"of each pixel, of shape \(8, 32, 32\)"):
        trainer.fit(x, y[:, 0, 0], verbose=0)

    class Stream(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return x[:4], np.where(y[:4] < 0, 255, y[:4])

    with pytest.raises(ValueError, match=r"class indices in \[0, 3\] or -1 for pixels .*; 4 images have others"):
        trainer.fit(Stream(), verbose=0)


def test_class_weights_of_an_attack_in_training(small, data):
    """An attack on the loss of choice inside of a compiled step."""
    x, y = data
    attack = kr.attacks.APGD(THREAT, n_iter=2, loss=CrossEntropy((1, 1, 1, 2), only_correct=True), tracked_loss="ce")
    trainer = kr.AdversarialModel(small, attack, diagnostics=True)
    trainer.compile("sgd", kr.segmentation.PixelCrossEntropy())
    history = trainer.fit(x, y, batch_size=8, verbose=0).history
    assert history["attack_gain"][0] >= 0
    assert np.isfinite(history["loss"]).all()
