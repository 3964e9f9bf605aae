"""The augmentations as KerasCV layers of their own."""

import keras
import numpy as np
import pytest

from keras_robust.data import HEAVY, resize_and_crop
from tests.data import files

tf = pytest.importorskip("tensorflow")
keras_cv = pytest.importorskip("keras_cv")
if keras.backend.backend() != "tensorflow":
    pytest.skip("the input pipeline is TensorFlow's whatever the backend", allow_module_level=True)
augment = pytest.importorskip("keras_robust.data.augmentation.keras_cv_layers")


@pytest.fixture(scope="module")
def batch():
    images, labels = files.photographs(6)
    return {
        "images": tf.constant(np.stack([resize_and_crop(image, 40, crop_pct=1.0) for image in images])),
        "labels": tf.one_hot(labels, 10),
    }


LAYERS = {
    "crop": lambda seed: augment.RandomResizedCrop(32, HEAVY, seed=seed),
    "vary": lambda seed: augment.RandAugment(HEAVY, seed=seed),
    "erase": lambda seed: augment.RandomErasing(HEAVY, seed=seed),
}


@pytest.mark.parametrize("name", LAYERS)
def test_seeds_decide_whatever_else_is_in_the_batch(name, batch):
    layer = LAYERS[name](None)
    seeds = tf.stack([tf.range(6), tf.fill([6], 7)], axis=1)
    whole = layer({**batch, "seeds": seeds})
    assert whole["images"].dtype == ("float32" if name == "erase" else "uint8")
    np.testing.assert_array_equal(whole["labels"], batch["labels"])
    one = layer({"images": batch["images"][3], "labels": batch["labels"][3], "seeds": seeds[3]})
    np.testing.assert_array_equal(one["images"], whole["images"][3])
    other = layer({**batch, "seeds": seeds + 1})
    assert not np.array_equal(other["images"], whole["images"])


def test_mixes_with_layers_of_kerascv(batch):
    """Without seeds a layer draws its own, as KerasCV's do."""
    layers = [LAYERS["crop"](1), LAYERS["vary"](2), LAYERS["erase"](3), augment.MixUpOrCutMix(HEAVY, seed=4)]
    example = batch
    for layer in (keras_cv.layers.RandomFlip("horizontal", seed=5, dtype="uint8"), *layers):
        example = layer({**example, "labels": tf.cast(example["labels"], tf.float32)})
    assert example["images"].shape == (6, 32, 32, 3)
    np.testing.assert_allclose(tf.reduce_sum(example["labels"], axis=1), 1.0, atol=1e-6)
    assert (example["labels"].numpy().max(axis=1) < 1.0).any()
