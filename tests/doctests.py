"""Names that the examples in docstrings may use: `pytest -p tests.doctests --doctest-modules keras_robust`.

Examples know `kr`, `keras`, `np`, a small `model` of five classes, eight images `x`, their labels `y`, others for
validation, `x_val` and `y_val`, a tf.data `dataset` of batches of them, a `threat` model, an `attack` and a compiled
`trainer`. They run in an empty folder. One that needs a file to download or hours is marked `# doctest: +SKIP`, with
the reason beside it.
"""

import doctest
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_robust as kr

# Files of the other backends, and those that run when they are imported.
ELSEWHERE = ("backend/jax/*", "backend/tensorflow/*", "__main__.py", "export/__main__.py")


def pytest_ignore_collect(collection_path):
    package = Path(kr.__file__).parent
    return any(collection_path.match(str(package / pattern)) for pattern in ELSEWHERE) or None


@pytest.fixture(autouse=True)
def _example_names(request, monkeypatch):
    if not isinstance(getattr(request.node, "dtest", None), doctest.DocTest):
        return
    import tensorflow as tf

    monkeypatch.chdir(request.getfixturevalue("tmp_path"))
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(size=(16, 16, 16, 3)).astype("float32"), np.arange(16, dtype="int32") % 5
    inputs = keras.Input((None, None, 3))
    features = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    logits = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(features))
    model = keras.Model(inputs, logits, name="small")
    threat = kr.ThreatModel("Linf", 4 / 255)
    attack = kr.attacks.APGD(threat, n_iter=2)
    trainer = kr.AdversarialModel(model, attack, ema_decay=0.99)
    trainer.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    x, y = images[:8], labels[:8]
    request.getfixturevalue("doctest_namespace").update(
        kr=kr,
        keras=keras,
        np=np,
        model=model,
        x=x,
        y=y,
        x_val=images[8:],
        y_val=labels[8:],
        dataset=tf.data.Dataset.from_tensor_slices((x, y)).batch(4).repeat(),
        threat=threat,
        attack=attack,
        trainer=trainer,
    )
