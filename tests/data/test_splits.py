"""Folders of classes and splits as people have them, and links among them."""

import os

import numpy as np
import pytest
from PIL import Image

from keras_robust import data
from keras_robust.data.class_names import label_order
from keras_robust.data.sources.splits import files_of

pytestmark = pytest.mark.once


def names_of(parts, classes=("cats", "dogs"), n=10):
    return [f"{part}/{name}/{i}.png" for part in parts for name in classes for i in range(n)]


def counts(names, split):
    found = files_of("ROOT", names, split, 0)
    return {name: len(files) for name, files in found.by_class.items()}


@pytest.mark.parametrize(
    ("train", "val"),
    [("train", "validation"), ("Train", "Val"), ("training", "dev"), ("TRAIN", "valid"), ("train", "eval")],
)
def test_synonyms_of_splits(train, val):
    names = names_of((train,)) + names_of((val,), n=3)
    assert counts(names, "train") == {"cats": 10, "dogs": 10}
    assert counts(names, "val") == counts(names, "held_out") == {"cats": 3, "dogs": 3}
    with pytest.raises(ValueError, match="split must be one that ROOT has, 'train', 'val'; received None"):
        counts(names, None)


def test_without_a_validation_part_one_is_held_out_of_train():
    names = names_of(("Training",)) + names_of(("Testing",), n=4)
    parts = {split: files_of("ROOT", names, split, 0) for split in ("train", "val", "test", "held_out")}
    assert counts(names, "train") == {"cats": 8, "dogs": 8}
    assert counts(names, "val") == {"cats": 2, "dogs": 2}
    assert counts(names, "test") == counts(names, "held_out") == {"cats": 4, "dogs": 4}
    files = [{name for members in parts[split].by_class.values() for name in members} for split in ("train", "val")]
    assert not files[0] & files[1]
    assert files[0] | files[1] == set(names_of(("Training",)))
    assert parts["train"].note == "no validation folder: a fifth of Training is held out as one (seed 0)"


@pytest.mark.parametrize("parts", [(), ("train",), ("train", "test"), ("train", "val", "test")])
def test_nothing_is_held_out_of_a_whole_train(parts):
    names = names_of(parts) if parts else [name.removeprefix("train/") for name in names_of(("train",))]
    assert counts(names, "whole_train") == {"cats": 10, "dogs": 10}


@pytest.mark.parametrize(
    "parts",
    [
        ("seg_train", "seg_test"),
        ("train", "val", "extra"),
        ("train2017", "val2017"),
        ("train", "holdout"),
        ("train", "valid", "dev"),
    ],
)
def test_what_looks_like_splits_and_is_not_understood_is_refused(parts):
    with pytest.raises(ValueError, match=rf"ROOT .*{parts[-1]}"):
        counts(names_of(parts), "train")


def test_classes_that_are_called_like_splits():
    names = [f"{name}/{i}.png" for name in ("train", "plane", "car") for i in range(5)]
    assert counts(names, None) == {"car": 5, "plane": 5, "train": 5}
    years = [f"{name}/{year}/{i}.png" for name in ("cats", "dogs") for year in (2019, 2020) for i in range(5)]
    assert counts(years, None) == {"cats": 10, "dogs": 10}


@pytest.mark.parametrize("stray", ["__MACOSX", ".ipynb_checkpoints", "@eaDir"])
def test_stray_folders_are_named(stray):
    for names in (
        [*names_of(("train", "val")), f"{stray}/train/._0.png", f"{stray}/x.png"],
        ["a/1.png", "b/1.png", f"{stray}/1.png"],
    ):
        with pytest.raises(ValueError, match=f"ROOT .*'{stray}'"):
            counts(names, "held_out")
    assert counts([*names_of(("train", "val")), f"train/cats/{stray}/Thumbs.db", "train/.DS_Store"], "train") == {
        "cats": 10,
        "dogs": 10,
    }


def test_numbers_are_ordered_as_numbers():
    assert label_order(map(str, range(12))) == [str(i) for i in range(12)]
    assert label_order(["10", "9", "n9"]) == ["10", "9", "n9"]
    names = [f"{i}/x.png" for i in (0, 1, 10, 11, 2, 3)]
    assert list(counts(names, None)) == ["0", "1", "2", "3", "10", "11"]


@pytest.fixture
def folder(tmp_path):
    for name, level in (("cats", 0), ("dogs", 255)):
        for i in range(10):
            path = tmp_path / name / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), (level,) * 3).save(path)
    return tmp_path


def levels(source):
    return {source.class_names[label]: set(image_levels(source, label)) for label in range(len(source.class_names))}


def image_levels(source, label):
    return (int(source.image(i)[0, 0, 0]) for i in np.flatnonzero(source.labels == label))


def test_links_are_followed_and_what_they_lead_to_is_taken_once(folder):
    expected = [10, 10]
    for link, target in (("cats/cats", "cats"), ("cats/all", "."), ("data", "."), ("dogs/sub", "dogs/../dogs")):
        os.symlink(folder / target, folder / link)
        source = data.source(folder, None)
        assert np.bincount(source.labels).tolist() == expected
        assert levels(source) == {"cats": {0}, "dogs": {255}}
    train, val = (data.source(folder, split) for split in ("train", "val"))
    assert not {os.path.realpath(path) for path in train.paths} & {os.path.realpath(path) for path in val.paths}
    os.symlink(folder / "cats" / "1.png", folder / "cats" / "again.png")
    assert len(data.source(folder, None)) == 20


def test_linked_images_elsewhere_are_read(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("linked")
    os.symlink(folder / "cats", root / "cats")
    (root / "dogs").mkdir()
    os.symlink(folder / "dogs" / "1.png", root / "dogs" / "one.png")
    assert levels(data.source(root, None)) == {"cats": {0}, "dogs": {255}}


def test_one_image_in_two_classes_is_refused(folder):
    os.symlink(folder / "dogs" / "1.png", folder / "cats" / "dog.png")
    with pytest.raises(ValueError, match=r"cats/dog\.png and .*dogs/1\.png are the same file"):
        data.source(folder, None)


def test_one_folder_in_two_classes_is_refused(folder):
    os.symlink(folder / "cats", folder / "kittens")
    with pytest.raises(ValueError, match="kittens must hold images; it holds none"):
        data.source(folder, None)


def test_special_files_are_corrupt_images_and_do_not_hang(folder):
    os.mkfifo(folder / "cats" / "pipe.png")
    os.symlink("/dev/zero", folder / "cats" / "zero.png")
    os.symlink(folder / "gone.png", folder / "dogs" / "dangling.png")
    source = data.source(folder, None)
    wrong = {"pipe.png": "regular file", "zero.png": "regular file", "dangling.png": "No such file"}
    for index in range(len(source)):
        file = os.path.basename(source.paths[index])
        if file in wrong:
            with pytest.raises(ValueError, match=rf"{file} .*{wrong.pop(file)}"):
                source.image(index)
    assert not wrong


def test_names_that_are_not_utf8(folder):
    os.rename(folder / "cats", os.fsencode(folder) + b"/caf\xe9")
    source = data.source(folder, None)
    assert source.class_names == ("caf\\xe9", "dogs")
    assert source.identifier(0) == "caf\\xe9/0.png"
    assert source.image(0).shape == (8, 8, 3)


def test_identifiers_are_class_and_the_rest_of_the_path(folder):
    (folder / "cats" / "a" / "b").mkdir(parents=True)
    os.rename(folder / "cats" / "0.png", folder / "cats" / "a" / "b" / "x:y.png")
    source = data.source(folder, None)
    found = {source.identifier(i) for i in range(len(source))}
    assert {"cats/a/b/x:y.png", "cats/1.png", "dogs/0.png"} <= found
    assert len(found) == 20
