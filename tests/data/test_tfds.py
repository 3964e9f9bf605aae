"""A data set of TensorFlow Datasets, prepared here from photographs' crops: nothing is downloaded."""

import numpy as np
import pytest

import keras_robust.data as data
from keras_robust.data.sources.tfds import first_values
from tests.data import files
from tests.data.process_sources import Watched

tfds = pytest.importorskip("tensorflow_datasets")
pytestmark = pytest.mark.once
COUNTS = {"train": 12, "validation": 4}


class RobustTestPhotos(tfds.core.GeneratorBasedBuilder):
    """Small photographs."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=["brick", "grass", "gravel", "cat"]),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(count) for split, count in COUNTS.items()}

    def _generate_examples(self, count):
        images, labels = files.photographs(40)
        for i in range(count):
            yield i, {"image": np.ascontiguousarray(images[i]), "label": int(labels[i]) % 4}


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def data_dir(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    tfds.builder("robust_test_photos", data_dir=folder, file_format=request.param).download_and_prepare()
    return folder


def test_examples_are_those_of_tfds(data_dir):
    for split, own in (("train", "train"), ("val", "validation")):
        source = data.source("tfds:robust_test_photos", split, data_dir=data_dir)
        assert source.class_names == ("brick", "grass", "gravel", "cat")
        assert len(source) == COUNTS[own]
        builder = tfds.builder("robust_test_photos", data_dir=data_dir)
        if "array_record" in str(data_dir):
            expected = list(builder.as_data_source(own))
        else:
            expected = list(builder.as_dataset(own, shuffle_files=False).as_numpy_iterator())
        np.testing.assert_array_equal(source.labels, [example["label"] for example in expected])
        for index, example in enumerate(expected):
            np.testing.assert_array_equal(source.image(index), example["image"])


def test_trains_without_reading_all_labels_first(data_dir):
    source = data.source("tfds:robust_test_photos", "train", data_dir=data_dir)
    _, labels = next(iter(data.TrainPipeline(source, "basic", 16, 12).dataset()))
    assert "labels" not in vars(source)
    np.testing.assert_array_equal(np.sort(np.asarray(labels).argmax(1)), np.sort(source.labels))


def test_nothing_is_downloaded_unasked(tmp_path):
    with pytest.raises(ValueError, match=r"not been prepared .* Pass download=True \(--download in tools\)"):
        data.source("tfds:robust_test_photos", "train", data_dir=tmp_path)
    assert not any(tmp_path.iterdir())


def test_unknown_names(data_dir):
    with pytest.raises(ValueError, match="TFDS has no data set 'no_such_photos'"):
        data.source("tfds:no_such_photos", "train", data_dir=data_dir)
    with pytest.raises(ValueError, match="one that 'robust_test_photos' has, 'train', 'validation'; received 'test'"):
        data.source("tfds:robust_test_photos", "test", data_dir=data_dir)


def test_truncated_files_are_refused(data_dir):
    if "array_record" in str(data_dir):
        pytest.skip("ArrayRecord's own reader checks its files")
    path = next(data_dir.rglob("*train.tfrecord*"))
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-10])
        with pytest.raises(ValueError, match="ends within a record"):
            data.source("tfds:robust_test_photos", "train", data_dir=data_dir)
    finally:
        path.write_bytes(content)


def test_records_are_read_as_tensorflow_reads_them():
    """Written by TensorFlow; of all its kinds of features, with names and values of many lengths."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    for label in (0, 1, 127, 128, 2**31, 2**62, -1, -(2**40)):
        image = rng.bytes(int(rng.integers(1, 100_000)))
        features = {
            "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image, b"second"])),
            "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label, 3])),
            "score": tf.train.Feature(float_list=tf.train.FloatList(value=rng.random(int(rng.integers(0, 99))))),
            "n" * 300: tf.train.Feature(),
        }
        record = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
        assert first_values(record, {b"image": "x", b"label": "y"}) == {"x": image, "y": label}
        for cut in rng.integers(1, len(record), 20):
            with pytest.raises(ValueError, match=r"a record (is damaged|has no)"):
                first_values(record[:cut], {b"image": "x", b"label": "y", b"n" * 300: "z"})
    with pytest.raises(ValueError, match="a record has no w"):
        first_values(record, {b"image": "x", b"w": "w"})


def test_workers_read_without_tensorflow(data_dir, tmp_path):
    source = Watched(data.source("tfds:robust_test_photos", "train", data_dir=data_dir), tmp_path)
    several, alone = (data.TrainPipeline(source, "basic", 16, 4, workers=workers) for workers in (1, 0))
    for computed, expected in zip(several.batch(1), alone.batch(1), strict=True):
        np.testing.assert_array_equal(computed, expected)
    several.close()
    assert (tmp_path / "frameworks").read_text() == ""
