"""Classes of a data set and outputs of a model: matched by name, or refused."""

import keras
import numpy as np
import pytest
from PIL import Image

import keras_robust as kr

N = 12
NONE = kr.ThreatModel("Linf", 0.0)


def folder_of(root, levels):
    """A folder of flat images, `levels` from each class to the grey of its images."""
    for name, level in levels.items():
        for i in range(2):
            path = root / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (level,) * 3).save(path)
    return root


def nearest_grey(levels):
    """A perfect model of flat images: output c is largest for the grey level c, -(x - level)^2 without its x^2."""
    levels = np.asarray(levels) / 255
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Dense(len(levels))(keras.layers.GlobalAveragePooling2D()(inputs)))
    model.set_weights([np.tile(200 * levels / 3, (3, 1)), -100 * levels**2])
    return model


def clean_accuracy(model, data, **options):
    report = kr.evaluation.evaluate(model, data, [NONE], [16], "short", crop_pct=1.0, verbose=False, **options)
    return report[NONE, 16].clean_accuracy


@pytest.mark.once
def test_folders_called_by_numbers(tmp_path):
    levels = {str(c): 20 * c for c in range(N)}
    model = nearest_grey([*levels.values()])
    assert clean_accuracy(model, folder_of(tmp_path / "full", levels)) == 1
    del levels["5"]
    assert clean_accuracy(model, folder_of(tmp_path / "subset", levels)) == 1


@pytest.mark.once
def test_a_model_trained_here_knows_its_classes(tmp_path):
    levels = {str(c + 1): 20 * c for c in range(N)}  # output 0 is the class "1"
    source = kr.data.source(folder_of(tmp_path / "full", levels), None)
    model = nearest_grey([levels[name] for name in source.class_names])
    kr.models.set_class_names(model, source.class_names)
    del levels["12"]  # by number, every image would be of the next class
    assert clean_accuracy(model, folder_of(tmp_path / "subset", levels)) == 1
    with pytest.raises(ValueError, match=r"must be among class_names, .* not there are 1 of 12: 13"):
        clean_accuracy(model, folder_of(tmp_path / "subset", {"13": 250}))


@pytest.mark.parametrize(
    ("format", "name"),
    [("tf_saved_model", "model"), ("onnx", "model.onnx"), ("litert", "model.tflite"), ("keras", "model.keras")],
)
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="formats are written by TensorFlow")
def test_an_artefact_is_evaluated_by_its_names(format, name, tmp_path):
    model = nearest_grey([210, 40])
    data = folder_of(tmp_path / "data", {"cat": 40, "dog": 210})
    kr.export.export(model, tmp_path / name, format, class_names=["dog", "cat"], resolution=16, verify=False)
    assert clean_accuracy(str(tmp_path / name), data) == 1
    with pytest.raises(ValueError, match="not there are 1 of 2: cow"):
        clean_accuracy(str(tmp_path / name), folder_of(tmp_path / "cows", {"cow": 40, "dog": 210}))
