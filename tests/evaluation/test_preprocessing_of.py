import keras_robust as kr
from keras_robust.evaluation.evaluate import preprocessing_of
from tests.evaluation.problem import linear_model


def test_preprocessing_is_that_of_the_model_unless_given(capsys):
    model = linear_model()
    assert preprocessing_of(model, None, None) == (0.875, "bicubic")
    model.preprocessing = kr.models.preset("robarch_small_110ep").preprocessing
    assert preprocessing_of(model, None, None, verbose=True) == (0.875, "bilinear")
    assert "preprocessing: crop_pct 0.875, bilinear (those of the preset or artefact)" in capsys.readouterr().err
    assert preprocessing_of(model, 1.0, None) == (1.0, "bilinear")
