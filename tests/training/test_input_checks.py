"""What people hand to `fit`: refused before any training, in a sentence that says how to mend it."""

from dataclasses import replace

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.training.input_checks import InputCheck

N, CLASSES = 20, 4
X = np.random.default_rng(0).uniform(size=(N, 12, 12, 3)).astype("float32")
Y = np.arange(N) % CLASSES


class Count(keras.callbacks.Callback):
    batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1


def trainer(loss="sparse", **options):
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.GlobalAveragePooling2D()(inputs)))
    made = kr.AdversarialModel(model, kr.attacks.FGSM(kr.ThreatModel("Linf", 4 / 255)), **options)
    kinds = {"sparse": keras.losses.SparseCategoricalCrossentropy, "soft": keras.losses.CategoricalCrossentropy}
    made.compile("adam", kinds[loss](from_logits=True))
    return made


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (((X * 255).astype("uint8"), Y), "validation_data: x must be floats in .* Divide 8-bit images by 255"),
        ((X * 255, Y), r"validation_data: x must be pixels in \[0, 1\]"),
        ((X, Y + 1), r"validation_data: y must be class indices in \[0, 3\]"),
    ],
)
def test_validation_data_are_checked_before_training(validation, message):
    count = Count()
    with pytest.raises(ValueError, match=message):
        trainer().fit(X, Y, validation_data=validation, verbose=0, callbacks=[count])
    assert count.batches == 0


def test_a_held_out_part_with_classes_of_its_own_is_refused():
    order = np.argsort(Y, kind="stable")
    with pytest.raises(ValueError, match=r"holds out the last 5 images, and with them all of class 3: .* Shuffle"):
        trainer().fit(X[order], Y[order], validation_split=0.25, verbose=0)
    with pytest.raises(ValueError, match="all of class 3"):
        trainer("soft").fit(X[order], np.eye(CLASSES)[Y[order]], validation_split=0.25, verbose=0)
    _, y = kr.data.photo_crops("val", per_class=20).arrays(16)
    assert {*y[:100]} == {*y[-20:], *y[:100]} == {*range(10)}


@pytest.mark.once
def test_robust_accuracy_has_a_direction():
    stopping = keras.callbacks.EarlyStopping("val_robust_accuracy", patience=0)
    trainer().fit(X, Y, validation_data=(X, Y), verbose=0, callbacks=[stopping])
    assert stopping.monitor_op is keras.ops.greater


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="the same on every backend, and JAX compiles for long")
def test_a_trainer_with_augmentation_is_saved_while_it_trains(tmp_path):
    augmentation = kr.data.DeviceAugmentation(replace(kr.data.HEAVY, operations=()), 12, num_classes=CLASSES)
    soft = np.eye(CLASSES, dtype="float32")[Y]
    made = trainer("soft", augmentation=augmentation)
    saving = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    made.fit(X, soft, epochs=2, verbose=0, callbacks=[saving])
    loaded = keras.saving.load_model(tmp_path / "2.keras")
    assert loaded.augmentation.policy == augmentation.policy
    for ours, theirs in zip(made.model.get_weights(), loaded.model.get_weights()):
        np.testing.assert_array_equal(ours, theirs)
    loaded.fit(X, soft, verbose=0)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras exports by TensorFlow")
def test_export_is_that_of_the_model_within(tmp_path):
    made = trainer()
    made.export(tmp_path / "exported", verbose=False)
    import tensorflow as tf

    loaded = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(loaded.serve(tf.constant(X)), made.model.predict(X, verbose=0), atol=1e-5)


@pytest.mark.once
def test_labels_as_keras_datasets_gives_them():
    trainer().fit(X, Y[:, None], verbose=0)
    attack = kr.attacks.FGSM(kr.ThreatModel("Linf", 4 / 255))
    model = trainer().model
    np.testing.assert_array_equal(attack(model, X, Y[:, None]), attack(model, X, Y))


def test_what_is_no_image_with_one_label():
    several = np.tile([1.0, 1.0, 0.0, 0.0], (N, 1)).astype("float32")
    with pytest.raises(ValueError, match="one class each, not several"):
        trainer("soft").fit(X, several, verbose=0)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere Keras says it first, in its own words")
def test_batches_that_are_no_pairs():
    class Dicts(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return {"image": X}, Y

    with pytest.raises(ValueError, match="batches must be one tensor of images and one of labels; received dict"):
        trainer().fit(Dicts(), verbose=0)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="there Keras waits for every step")
def test_fit_waits_for_no_step():
    """Keras reads the logs of every step, and waits for it, if one callback has something to do at its end."""
    assert keras.callbacks.CallbackList([InputCheck(trainer())])._async_train
    assert not keras.callbacks.CallbackList([InputCheck(trainer()), Count()])._async_train
