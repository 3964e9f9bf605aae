"""tools/evaluate.py on a SavedModel."""

from pathlib import Path

import keras
import numpy as np
import pytest

import keras_robust as kr
from tests import scripts
from tests.evaluation.problem import Flat, image_folder, linear_model


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModels are TensorFlow's")
def test_saved_model(tmp_path):
    linear_model().export(tmp_path / "served", format="tf_saved_model", verbose=False)
    given = ["--model", tmp_path / "served", "--pixels", "0..1", "--data", image_folder(tmp_path / "images", 12)]
    given += ["--threats", "Linf:0.01", "--resolutions", 8, "--attack", "short", "--batch-size", 6, "--quiet"]
    given += ["--out", tmp_path / "out", "--n-examples", 6]
    assert scripts.load("tools/evaluate.py").main([str(argument) for argument in given]) == 0
    report = kr.evaluation.Report.load(tmp_path / "out")
    index = [int(Path(name).stem) for name in report.images.name]
    np.testing.assert_array_equal(report.results[0].is_robust, Flat(12).robust(report.threats[0], 8)[index])
