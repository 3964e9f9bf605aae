import pytest

import keras_robust as kr
from keras_robust.evaluation.evaluate import preprocessing_of
from tests.evaluation.problem import linear_model

pytestmark = pytest.mark.once


def test_preprocessing_is_that_of_the_model_unless_given(capsys):
    model = linear_model()
    assert preprocessing_of(model, None, None) == (0.875, "bicubic")
    model.preprocessing = kr.models.preset("robarch_small_110ep").preprocessing
    assert preprocessing_of(model, None, None, verbose=True) == (0.875, "bilinear")
    assert "preprocessing: crop_pct 0.875, bilinear (those of the preset or artefact)" in capsys.readouterr().err
    assert preprocessing_of(model, 1.0, None) == (1.0, "bilinear")


def test_a_crop_without_a_resize_has_no_crop_pct():
    model = linear_model()
    model.preprocessing = kr.models.preset("Wong2020Fast").preprocessing
    assert preprocessing_of(model, None, None) == (1.0, "none")
    assert preprocessing_of(model, 0.875, "bilinear") == (0.875, "bilinear")
    with pytest.raises(ValueError, match=r"crop_pct must be None, or interpolation given with it.*received 0\.875"):
        preprocessing_of(model, 0.875, None)
