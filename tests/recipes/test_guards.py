"""What counts as broken, and that robust accuracy is that of inference mode."""

import io

import keras
import numpy as np
import pytest
from keras import ops

import keras_robust as kr
from keras_robust.progress import duration
from keras_robust.recipes import TrainingBroken
from keras_robust.recipes.guards import check_finite, check_overfitting
from keras_robust.recipes.progress import TrainingProgress


def _history(robust, training):
    return [{"val_robust_accuracy": r, "accuracy": t} for r, t in zip(robust, training)]


@pytest.mark.parametrize(
    ("robust", "training", "broken"),
    [
        ([0.2, 0.4, 0.02], [0.3, 0.5, 0.6], True),
        ([0.2, 0.4, 0.35], [0.3, 0.5, 0.6], False),
        ([0.2, 0.4, 0.02], [0.3, 0.5, 0.1], False),  # training fell too
        ([0.03, 0.01], [0.1, 0.1], False),  # within the noise of 200 images
        ([0.4], [0.5], False),
    ],
)
def test_catastrophic_overfitting(robust, training, broken):
    if broken:
        with pytest.raises(TrainingBroken, match=r"robust accuracy fell to 2.0% \(best 40.0%\)"):
            check_overfitting(_history(robust, training), 0.5, 200)
    else:
        check_overfitting(_history(robust, training), 0.5, 200)


def test_loss_must_be_finite():
    check_finite({"loss": 3.0}, 7)
    for loss in (float("nan"), float("inf")):
        with pytest.raises(TrainingBroken, match="at step 7"):
            check_finite({"loss": loss}, 7)


def test_robust_accuracy_is_that_of_inference_mode(batch):
    """Batch norm whose moving statistics fit no batch: right in training mode, wrong as it would be served."""
    x, _ = batch
    inputs = keras.Input((None, None, 3))
    norm = keras.layers.BatchNormalization(momentum=1.0, scale=False, center=False)
    h = norm(keras.layers.GlobalAveragePooling2D()(inputs))
    net = keras.Model(inputs, keras.layers.Dense(2, use_bias=False)(h))
    net.layers[-1].kernel.assign(np.array([[-1.0, 1.0], [0, 0], [0, 0]]))
    mean = x.mean((1, 2))[:, 0]
    y = (mean > mean.mean()).astype("int32")  # what training mode answers
    norm.moving_mean.assign(np.array([9.0, 0.0, 0.0]))  # inference mode says class 0 of everything
    in_training = ops.convert_to_numpy(net(x, training=True)).argmax(1)
    np.testing.assert_array_equal(in_training, y)
    attack = kr.attacks.APGD(kr.ThreatModel("Linf", 0.001), n_iter=2)
    trainer = kr.AdversarialModel(net, attack)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(keras.optimizers.SGD(0.0), loss, metrics=["accuracy"])
    logs = trainer.fit(x, y, batch_size=8, validation_data=(x, y), verbose=0).history
    assert logs["accuracy"][0] > 0.7
    assert logs["val_robust_accuracy"][0] == pytest.approx((y == 0).mean())


def test_progress_line():
    stream = io.StringIO()
    progress = TrainingProgress(epochs=3, steps_per_epoch=10, batch_size=64, stream=stream)
    progress.restart(0)
    progress._rates.append(0.5)
    progress.report(12, {"loss": 1.25, "accuracy": 0.5}, wait=0.02)
    assert stream.getvalue() == (
        "epoch 2/3  step  2/10  loss 1.250  accuracy 50.0%  128 images/s  input wait 2%  left 9 s\n"
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(9.4, "9 s"), (61, "1 min 1 s"), (3900, "1 h 5 min"), (2 * 86400 + 7200, "2 d 2 h"), (-1, "0 s")],
)
def test_duration(seconds, words):
    assert duration(seconds) == words
