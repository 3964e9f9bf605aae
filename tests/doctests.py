"""Names that the examples in docstrings may use: `pytest -p tests.doctests --doctest-modules keras_robust`.

Examples know `kr`, `keras`, `np`, a small `model` of five classes, eight images `x` and their labels `y`. They run in
an empty folder. One that needs a file, a network or minutes is marked `# doctest: +SKIP` and says why.
"""

import doctest

import keras
import numpy as np
import pytest

import keras_robust as kr


@pytest.fixture(autouse=True)
def _example_names(request, monkeypatch):
    if not isinstance(getattr(request.node, "dtest", None), doctest.DocTest):
        return
    monkeypatch.chdir(request.getfixturevalue("tmp_path"))
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    inputs = keras.Input((None, None, 3))
    features = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    logits = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(features))
    request.getfixturevalue("doctest_namespace").update(
        kr=kr,
        keras=keras,
        np=np,
        model=keras.Model(inputs, logits, name="small"),
        x=rng.uniform(size=(8, 8, 8, 3)).astype("float32"),
        y=np.arange(8, dtype="int32") % 5,
    )
