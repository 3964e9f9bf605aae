import hashlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_robust.data as data
from keras_robust.data.sources.photo_crops import PHOTOS, _scikit_image_folder

pytestmark = pytest.mark.once

SPLITS = ("train", "val")


@pytest.fixture(scope="module")
def crops():
    return {split: data.photo_crops(split) for split in SPLITS}


def test_crops_are_balanced_and_sized(crops):
    for split, per_class in (("train", 400), ("val", 100)):
        source = crops[split]
        assert len(source) == 10 * per_class
        assert source.class_names == tuple(PHOTOS)
        np.testing.assert_array_equal(np.bincount(source.labels), [per_class] * 10)
        sides = source.boxes[:, 2:] - source.boxes[:, :2]
        np.testing.assert_array_equal(sides[:, 0], sides[:, 1])
        assert sides.min() == 48
        assert sides.max() == 96


def test_splits_share_no_pixel(crops):
    for label, (_, (width, height)) in enumerate(PHOTOS.values()):
        covered = {split: np.zeros((height, width), bool) for split in SPLITS}
        for split in SPLITS:
            for left, top, right, bottom in crops[split].boxes[crops[split].labels == label]:
                assert 0 <= left < right <= width
                assert 0 <= top < bottom <= height
                covered[split][top:bottom, left:right] = True
        assert not np.any(covered["train"] & covered["val"])
        assert covered["train"].any(axis=0).nonzero()[0].max() < 0.6 * width
        assert covered["val"].any(axis=0).nonzero()[0].min() >= int(0.6 * width)


def test_boxes_are_the_same_everywhere(crops):
    # Of boxes, not pixels: JPEG decoders and resize filters may round differently from release to release.
    digests = {split: hashlib.sha256(crops[split].boxes.astype("<i8").tobytes()).hexdigest()[:16] for split in SPLITS}
    assert digests == {"train": "1a9ac4a6df9d4578", "val": "45d2f7d62c44b892"}


def test_pixels_are_those_of_the_photograph(crops):
    index = 450  # of class grass
    left, top, right, bottom = crops["train"].boxes[index]
    photo = Image.open(_scikit_image_folder() / "grass.png").convert("RGB")
    np.testing.assert_array_equal(crops["train"].image(index), photo.crop((left, top, right, bottom)))


def test_more_crops_extend_fewer():
    few, many = (data.photo_crops("val", per_class=n) for n in (2, 3))
    np.testing.assert_array_equal(few.boxes[:2], many.boxes[:2])
    assert not np.array_equal(few.boxes, data.photo_crops("val", per_class=2, seed=1).boxes)


def test_arrays_come_from_the_raw_crops_at_any_resolution():
    source = data.photo_crops("val", per_class=3)
    for resolution in (24, 48):
        images, labels = source.arrays(resolution, crop_pct=1.0)
        assert images.shape == (30, resolution, resolution, 3)
        assert images.dtype == np.uint8
        assert sorted(labels) == [label for label in range(10) for _ in range(3)]
        assert list(labels) != sorted(labels)
        images, labels = source.arrays(resolution, crop_pct=1.0, seed=None)
        np.testing.assert_array_equal(labels, np.repeat(np.arange(10), 3))
        expected = data.resize_and_crop(source.image(7), resolution, crop_pct=1.0)
        np.testing.assert_array_equal(images[7], expected)


def test_sample_is_drawn_without_replacement_and_repeatable(crops):
    sample = crops["val"].sample(50, seed=3)
    again = crops["val"].sample(50, seed=3)
    assert len(sample) == len(again) == 50
    np.testing.assert_array_equal(sample.labels, again.labels)
    for i in (0, 49):
        np.testing.assert_array_equal(sample.image(i), again.image(i))
    np.testing.assert_array_equal(np.bincount(crops["val"].sample(5000).labels), [100] * 10)
    assert not np.array_equal(sample.labels, crops["val"].sample(50, seed=4).labels)


def test_scikit_image_itself_is_not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "skimage", raising=False)
    data.photo_crops("val", per_class=1).image(0)
    assert "skimage" not in sys.modules


def test_without_scikit_image(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'keras-robust\[images\]'"):
        data.photo_crops("train")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "split must be one of 'train', 'val'; received 'test'"),
        ({"split": "val", "per_class": 0}, "per_class must be an integer >= 1; received 0"),
    ],
)
def test_bad_arguments_of_photo_crops(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.photo_crops(**arguments)


def write(path, value=0, size=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def test_folder_with_its_own_splits(tmp_path):
    for part, value in (("train", 10), ("val", 20)):
        write(tmp_path / part / "b" / "1.png", value)
        write(tmp_path / part / "a" / "deep" / "2.png", value + 1)
        write(tmp_path / part / "a" / ".hidden.png", 99)
    train, val = (data.source(tmp_path, split) for split in SPLITS)
    assert train.class_names == val.class_names == ("a", "b")
    np.testing.assert_array_equal(train.labels, [0, 1])
    assert [train.image(i)[0, 0, 0] for i in range(2)] == [11, 10]
    assert [val.image(i)[0, 0, 0] for i in range(2)] == [21, 20]
    assert val.arrays(4)[0].shape == (2, 4, 4, 3)


def test_flat_folder_is_split_by_name(tmp_path):
    for name, n in (("a", 10), ("b", 3)):
        for i in range(n):
            write(tmp_path / name / f"{i}.png", i)
    (tmp_path / "LICENSE").write_text("not a class")
    train, val = (data.source(tmp_path, split) for split in SPLITS)
    assert not set(train.paths) & set(val.paths)
    files = {str(path) for path in tmp_path.rglob("*.png")}
    assert set(train.paths) | set(val.paths) == files
    assert set(data.source(tmp_path, None).paths) == files
    np.testing.assert_array_equal(np.bincount(val.labels), [2, 1])
    assert val.paths == data.source(str(tmp_path), "val").paths
    assert [Path(path).parent.name for path in train.paths] == [train.class_names[label] for label in train.labels]


def test_folder_errors(tmp_path):
    with pytest.raises(ValueError, match="root must be a folder"):
        data.sources.ImageFolder(tmp_path / "absent", "train")
    with pytest.raises(ValueError, match="it holds no folders"):
        data.source(tmp_path, "train")
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="a must hold images"):
        data.source(tmp_path, "train")
    write(tmp_path / "a" / "1.png")
    with pytest.raises(ValueError, match="it holds one"):
        data.source(tmp_path, "train")
    (tmp_path / "a" / "2.png").write_text("no image")
    splits = [data.source(tmp_path, split) for split in SPLITS]
    corrupt = next(source for source in splits if source.paths[0].endswith("2.png"))
    with pytest.raises(ValueError, match=r"2\.png cannot be read"):
        corrupt.arrays(4)


def test_classes_of_the_splits_must_match(tmp_path):
    write(tmp_path / "train" / "a" / "1.png")
    write(tmp_path / "val" / "b" / "1.png")
    with pytest.raises(ValueError, match="only one has 'a', 'b'"):
        data.source(tmp_path, "train")
