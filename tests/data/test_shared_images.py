"""Files in training and validation at once: found by content, whatever they are called and wherever they lie."""

import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from keras_robust import data
from keras_robust.data.shared_images import shared_images

pytestmark = pytest.mark.once


@pytest.fixture
def folder(tmp_path):
    """Two classes of six noisy images in train and two in val, all of one size on disk."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).save(tmp_path / split / name / f"{i}.bmp")
    return tmp_path


def found(train, val):
    return shared_images(data.source(train, "train"), data.source(val, "val"))


def test_only_equal_contents_count(folder):
    assert found(folder, folder) == []
    shutil.copy(folder / "train/cat/3.bmp", folder / "val/cat/other.bmp")
    shutil.copy(folder / "train/cat/3.bmp", folder / "val/dog/another.bmp")
    assert found(folder, folder) == [str(folder / "val/cat/other.bmp"), str(folder / "val/dog/another.bmp")]


def test_between_an_archive_and_a_folder(folder, tmp_path):
    shutil.copy(folder / "train/cat/3.bmp", folder / "val/cat/other.bmp")
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        for split in ("train", "val"):
            archive.add(folder / split, split)
    assert found(tmp_path / "all.tar", folder) == [str(folder / "val/cat/other.bmp")]
    assert found(folder, tmp_path / "all.tar") == [f"{tmp_path / 'all.tar'}:val/cat/other.bmp"]


def test_a_sample_is_looked_at_alone(folder):
    shutil.copy(folder / "train/cat/3.bmp", folder / "val/cat/other.bmp")
    train, val = data.source(folder, "train"), data.source(folder, "val")
    assert len(shared_images(train, val.sample(5))) == 1


def test_sources_that_are_no_files():
    crops = data.photo_crops("val", 1)
    assert shared_images(crops, crops) == []
