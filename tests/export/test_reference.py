import keras
import numpy as np
import pytest

from keras_robust.data import Source
from keras_robust.export import reference

if keras.backend.backend() != "tensorflow":
    pytest.skip("numpy alone", allow_module_level=True)


class Names(Source):
    def __init__(self, *names):
        self.class_names = names


def test_classes_of_a_data_set_are_found_by_name():
    """A subset in another order, as Imagenette is of ImageNet: labels by place would be wrong."""
    np.testing.assert_array_equal(reference.outputs_of(Names("cat", "ant"), ["ant", "bee", "cat"]), [2, 0])
    np.testing.assert_array_equal(reference.outputs_of(Names("x", "y", "z"), ["0", "1", "2"]), [0, 1, 2])
    with pytest.raises(ValueError, match="not there are 1 of 2: x"):
        reference.outputs_of(Names("x", "ant"), ["ant", "bee", "cat"])


def test_second_resolution_suits_models_of_patches():
    for resolution in (16, 32, 48, 64, 224, 384):
        first, second = reference.resolutions(resolution)
        assert first == resolution < second <= 2 * resolution
        assert second % 16 == 0
