import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.training.class_counts import ClassCounts


def test_counts_of_weighted_batches():
    counts = ClassCounts(4, name="counts")
    counts.update_state(keras.ops.convert_to_tensor([0, 3, 3]))
    counts.update_state(keras.ops.convert_to_tensor([1, 2, 3]), keras.ops.convert_to_tensor([1.0, 0.0, 0.5]))
    assert counts.counts().tolist() == [1, 1, 0, 3]
    assert float(counts.result()) == pytest.approx(0.6)
    counts.reset_state()
    assert counts.counts().sum() == 0


def trainer_of(logits):
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, logits(inputs))
    trainer = kr.AdversarialModel(model, kr.attacks.APGD(kr.ThreatModel("Linf", 0.01), n_iter=1))
    trainer.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return trainer


def test_a_collapsed_model_is_a_warning_beside_its_figure():
    pooled = keras.layers.GlobalAveragePooling2D()
    trainer = trainer_of(
        lambda x: keras.layers.Dense(3, bias_initializer=lambda *_, **__: np.array([0, 50, 0]))(pooled(x))
    )
    x = np.random.default_rng(0).uniform(size=(9, 8, 8, 3)).astype("float32")
    y = np.arange(9) % 3
    with pytest.warns(UserWarning, match="One answer: all 9 images are classified as 1"):
        logs = trainer.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    assert logs == {"loss": pytest.approx(logs["loss"]), "robust_accuracy": pytest.approx(1 / 3)}
    with pytest.warns(UserWarning, match="One answer"):
        trainer.fit(x, y, batch_size=9, validation_data=(x, y), verbose=0)


def test_gradients_that_do_not_reach_the_image_are_a_warning():
    rounded = keras.layers.Lambda(lambda x: keras.ops.round(255 * x) / 255)
    trainer = trainer_of(lambda x: keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(rounded(x))))
    x = np.random.default_rng(0).uniform(size=(9, 8, 8, 3)).astype("float32")
    with pytest.warns(UserWarning, match="the gradient of the loss is zero for 100% of the images"):
        trainer.evaluate(x, np.arange(9) % 3, verbose=0)
