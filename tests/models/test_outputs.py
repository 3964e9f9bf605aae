import keras
import pytest

import keras_robust as kr

pytestmark = pytest.mark.once


@pytest.fixture
def net():
    return kr.models.create("vit_tiny", num_classes=3, input_size=32)


def test_names_are_saved_with_the_model(net, tmp_path):
    assert kr.models.class_names(net) is None
    kr.models.set_class_names(net, ["dog", "cat", "gnü"])
    net.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    assert (
        kr.models.class_names(loaded) == kr.models.class_names(keras.models.clone_model(net)) == ("dog", "cat", "gnü")
    )


def test_numbers_of_the_outputs_are_no_names(net):
    kr.models.set_class_names(net, ["0", "1", "2"])
    assert kr.models.class_names(net) is None
    kr.models.set_class_names(net, ["1", "0", "2"])
    assert kr.models.class_names(net) == ("1", "0", "2")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b"], "class_names must be 3 non-empty strings"),
        (["a", "b", ""], "class_names must be 3 non-empty strings"),
        (["a", "b", "c\n"], "class_names must be 3 non-empty strings"),
        (["a", "b", "a"], "class_names must differ; these repeat: a"),
    ],
)
def test_names_that_are_none(net, names, message):
    with pytest.raises(ValueError, match=message):
        kr.models.set_class_names(net, names)


def test_foreign_models_hold_names_as_long_as_they_live():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inputs)))
    assert kr.models.class_names(model) is None
    kr.models.set_class_names(model, ["cat", "dog"])
    assert kr.models.class_names(model) == ("cat", "dog")
