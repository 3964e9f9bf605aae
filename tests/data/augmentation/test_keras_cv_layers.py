"""The augmentations as KerasCV layers of their own."""

import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest

from keras_robust import data
from keras_robust.data import HEAVY, resize_and_crop
from keras_robust.data.augmentation import parameters
from tests.data import files

tf = pytest.importorskip("tensorflow")
keras_cv = pytest.importorskip("keras_cv")
if keras.backend.backend() != "tensorflow":
    pytest.skip("the input pipeline is TensorFlow's whatever the backend", allow_module_level=True)
augment = data.layers


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


def chain(policy, resolution):
    """The layers of a policy in their order, the last for batches."""
    layers = augment.RandAugment(policy), augment.RandomErasing(policy), augment.MixUpOrCutMix(policy)
    return augment.RandomResizedCrop(resolution, policy), *layers


def test_in_a_tf_data_pipeline_seeds_decide_alone(batch):
    """By however many threads, and from any image on."""
    policy = replace(HEAVY, group_size=2)
    crop, vary, erase, mix = chain(policy, 24)

    def stream(threads, skipped=0):
        photos = tf.data.Dataset.from_tensor_slices(batch).enumerate().skip(skipped)
        photos = photos.map(lambda i, photo: {**photo, "seeds": tf.stack([7, tf.cast(i, tf.int32)])})
        for layer in (crop, vary, erase):
            photos = photos.map(layer, num_parallel_calls=threads)
        return list(photos.batch(2).map(mix))

    whole = stream(1)
    for other in (stream(4), stream(2, skipped=2)):
        for one, two in zip(whole[-len(other) :], other, strict=True):
            assert one["images"].shape == (2, 24, 24, 3)
            np.testing.assert_array_equal(one["images"], two["images"])
            np.testing.assert_array_equal(one["labels"], two["labels"])


def test_layers_with_the_same_seeds_draw_numbers_of_their_own():
    seed = tf.constant([3, 4])
    layers = [*chain(HEAVY, 8), augment.RandAugment(HEAVY, seed=1)]
    drawn = np.stack([layer.uniform(seed, 50) for layer in layers])
    assert len(np.unique(drawn)) == drawn.size
    assert 0.0 <= drawn.min() <= drawn.max() < 1.0
    np.testing.assert_array_equal(layers[0].uniform(seed, 50), drawn[0])


def test_given_what_the_sampler_draws_they_give_the_pipelines_batch():
    """Of images that are drawn, cropped, varied, erased and mixed by worker processes."""
    policy = replace(HEAVY, group_size=4)
    source = data.photo_crops("val", per_class=3)
    train = data.TrainPipeline(source, policy, 24, batch_size=8, workers=0, engine="grain")
    step = 3
    expected, labels = train.batch(step)
    crop, vary, erase, mix = chain(policy, 24)
    drawn, mixtures = train.sampler.examples(step), tf.nest.map_structure(tf.constant, train.sampler.mixtures(step))
    images = []
    for i, index in enumerate(drawn["index"]):
        example = {"images": tf.constant(source.image(index)), "labels": tf.constant(source.labels[index])}
        for layer in (crop, vary, erase):
            transformation = {name: tf.constant(values[i]) for name, values in drawn.items()}
            example = layer({**example, "transformations": transformation})
        images.append(example["images"])
    classes = np.eye(10, dtype=np.float32)[source.labels[drawn["index"]]]
    mixed = mix({"images": tf.stack(images), "labels": tf.constant(classes), "transformations": mixtures})
    np.testing.assert_array_equal(tf.clip_by_value(mixed["images"], 0.0, 1.0), expected)
    np.testing.assert_allclose(0.9 * mixed["labels"] + 0.1 / 10, labels, atol=1e-6)


def test_groups_are_mixed_by_the_seeds_of_their_first_images(batch):
    policy = replace(HEAVY, group_size=3)
    mix = augment.MixUpOrCutMix(policy)
    images = tf.cast(batch["images"], tf.float32) / 255.0
    seeds = tf.stack([tf.range(6), tf.fill([6], 7)], axis=1)
    labels = mix({"images": images, "labels": batch["labels"], "seeds": seeds})["labels"].numpy()
    for first in (0, 3):
        numbers = mix.uniform(seeds[first], parameters.MIX).numpy()
        share = float(parameters.mixture(numbers, 40.0, policy, np)[0])
        own = batch["labels"].numpy()[first : first + 3]
        np.testing.assert_allclose(labels[first : first + 3], share * own + (1 - share) * own[::-1], atol=1e-5)


@pytest.mark.parametrize("place", range(4))
def test_configurations_give_the_same_layers(place):
    policy = replace(HEAVY, group_size=4, magnitude=5.0)
    layer = chain(policy, 24)[place]
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer)
    assert again.policy == policy
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda layers: layers.RandomResizedCrop(0), "resolution must be an integer >= 1; received 0"),
        (lambda layers: layers.RandomResizedCrop(8, HEAVY.device_part), "policy must crop"),
        (lambda layers: layers.RandAugment("strong"), "policy must be one of 'heavy', 'basic'"),
        (
            lambda layers: layers.MixUpOrCutMix()({"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.eye(2)}),
            r"images must be float32 in \[0, 1\], as RandomErasing gives them; received uint8",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make(augment)


def test_they_are_imported_when_they_are_asked_for(monkeypatch):
    script = (
        "import sys; from keras_robust import data; assert 'RandAugment' in dir(data.layers); "
        "assert not {'keras', 'tensorflow', 'keras_cv'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    monkeypatch.setitem(sys.modules, "keras_robust.data.augmentation.keras_cv_layers", None)
    with pytest.raises(ImportError, match=r"kr\.data\.layers .* pip install 'keras-robust\[tensorflow\]'"):
        augment.RandAugment("heavy")
    with pytest.raises(AttributeError, match="no attribute 'Blur'"):
        _ = augment.Blur
