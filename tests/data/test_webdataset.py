"""WebDataset shards: as patterns, folders, files, lists; their splits, classes, index, and what is wrong with them."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

from keras_robust import data
from keras_robust.data import TrainPipeline
from keras_robust.data.sources import TarArchive, WebDataset, kept_index, shard_index, webdataset
from keras_robust.data.sources.shards import splits_in
from keras_robust.evaluation.image_selection import open_dataset, select
from tests.data.shards import LONG_AGO, in_json, png, samples, tar, values

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def shards(tmp_path):
    """Three shards of ten images, whose pixels are their numbers; labels are numbers modulo two."""
    for i in range(3):
        tar(tmp_path / f"shard-{i:04}.tar", samples(range(10 * i, 10 * i + 10)))
    return tmp_path


EXPECTED = [(n, n % 2) for n in range(30)]


def test_patterns_folders_lists_and_files(shards):
    paths = sorted(shards.glob("*.tar"))
    for place in (shards, f"{shards}/shard-{{0000..0002}}.tar", f"{shards}/shard-000{{0,1,2}}.tar", paths, paths[::-1]):
        source = data.source(place, None)
        assert isinstance(source, WebDataset)
        assert values(source) == EXPECTED
        assert source.class_names == ("0", "1")
    assert values(data.source(paths[1], None)) == EXPECTED[10:20]
    assert source.name(12) == f"{paths[1]}:0012.png"
    assert source.identifier(12) == "shard-0001.tar:0012.png"
    assert source.file_size(12) == len(png(12))
    assert source.encoded_with_label(12) == (png(12), 0)


def test_splits_are_told_by_names(tmp_path):
    tar(tmp_path / "data" / "imagenet-train-00.tar", samples(range(8)))
    tar(tmp_path / "data" / "imagenet-validation-00.tar", samples(range(20, 24)))
    for place in (tmp_path, f"{tmp_path}/data/imagenet-{{train,validation}}-00.tar"):
        found = {split: values(data.source(place, split)) for split in ("train", "val", "held_out", "whole_train")}
        assert found["train"] == found["whole_train"] == [(n, n % 2) for n in range(8)]
        assert found["val"] == found["held_out"] == [(n, n % 2) for n in range(20, 24)]
    with pytest.raises(ValueError, match=r"split must be one that .* has, 'train', 'val'; received None"):
        data.source(tmp_path, None)
    alone = data.source(tmp_path / "data" / "imagenet-train-00.tar", "held_out")
    assert "no images are held out" in alone.note
    assert splits_in("latest/trainers-01.tar") == []


def test_a_fifth_of_each_class_is_held_out_where_no_name_tells_a_split(shards):
    train, val = (data.source(shards, split) for split in ("train", "val"))
    assert np.bincount(train.labels).tolist() == [12, 12]
    assert np.bincount(val.labels).tolist() == [3, 3]
    assert sorted(values(train) + values(val)) == EXPECTED
    assert values(data.source(shards, "val")) == values(val) != values(data.source(shards, "val", seed=1))
    assert "a fifth of each class is held out as one (seed 0)" in val.note
    with pytest.raises(ValueError, match="has no test part"):
        data.source(shards, "test")


def test_names_of_classes(tmp_path):
    """From the samples, a list, a file beside the shards, or labels that are names."""
    tar(tmp_path / "a" / "0.tar", samples(range(4), label=in_json))
    assert data.source(tmp_path / "a", None).class_names == ("cat", "dog")
    assert data.source(tmp_path / "a", None, class_names=["x", "y", "z"]).class_names == ("x", "y", "z")
    tar(tmp_path / "b" / "0.tar", samples(range(4)))
    (tmp_path / "b" / "classes.txt").write_text("ant\nbee\nwasp\n")
    assert data.source(tmp_path / "b", None).class_names == ("ant", "bee", "wasp")
    tar(tmp_path / "c" / "0.tar", samples(range(4), label=lambda n, _: {"json": b'{"cls": "%s"}' % b"zy"[n % 2 :][:1]}))
    source = data.source(tmp_path / "c", None)
    assert source.class_names == ("y", "z")
    assert source.labels.tolist() == [1, 0, 1, 0]
    (tmp_path / "b" / "classes.txt").write_text("ant\nbee\nant\n")
    with pytest.raises(ValueError, match=r"classes\.txt must name each class once; 'ant'"):
        data.source(tmp_path / "b", None)
    with pytest.raises(ValueError, match="class_names must be None for photo_crops"):
        data.source("photo_crops", "val", class_names=["a"])


def test_classes_are_those_of_the_training_shards(tmp_path):
    tar(tmp_path / "train.tar", samples(range(6), classes=3))
    tar(tmp_path / "val.tar", samples(range(4)))
    assert data.source(tmp_path, "val").class_names == ("0", "1", "2")
    tar(tmp_path / "val.tar", samples(range(5), classes=5))
    with pytest.raises(ValueError, match=r"val\.tar:0003\.png must have a label in \[0, 2\]; received 3"):
        data.source(tmp_path, "val")


def test_classes_that_are_called_otherwise_than_in_training_are_refused(tmp_path):
    tar(tmp_path / "train.tar", samples(range(4), label=in_json))
    tar(tmp_path / "val.tar", samples(range(4), label=lambda n, _: {"json": b'{"cls": 0, "class_name": "dog"}'}))
    with pytest.raises(ValueError, match=r"label 0 must have one name; the shards call it 'cat' and 'dog'"):
        data.source(tmp_path, "val")


def test_other_files_of_samples_and_of_folders_are_passed_over(tmp_path):
    members = {"a/._1.jpg": b"fork", "a/1.txt": b"a cat", "a/1.jpg": png(5), "a/1.cls": b" 0\n", "a/": b""}
    tar(tmp_path / "s.tar", members)
    (tmp_path / "README.md").write_text("# Data")
    (tmp_path / "s.parquet").write_bytes(b"a table of the same images")
    assert values(data.source(tmp_path, None)) == [(5, 0)]


def test_archives_and_folders_of_class_folders_stay_what_they_were(tmp_path):
    tar(tmp_path / "a.tar", {"cat/1.png": png(), "dog/2.png": png()})
    assert isinstance(data.source(tmp_path / "a.tar", None), TarArchive)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(png())
    assert len(data.source(tmp_path, None)) == 2  # beside the archive that they were unpacked from


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.png": png(), "1.cls": b"0", "2.png": png()}, "sample '2' has no label"),
        ({"1.png": png(), "1.json": b'{"width": 4}'}, "sample '1' has no label"),
        ({"1.png": png(), "1.cls": b"0", "2.cls": b"0"}, "sample '2' has no image"),
        ({"1.png": png(), "1.cls": b"cat"}, r"1\.cls must hold a label, a whole number >= 0; received 'cat'"),
        ({"1.png": png(), "1.cls": b"-1"}, "received '-1'"),
        ({"1.png": png(), "1.cls": b"1000000"}, r"a whole number in \[0, 999999\]; received 1000000"),
        ({"1.png": png(), "1.json": b'{"label": -3}'}, "received -3"),
        ({"1.png": png(), "1.json": b'{"label": 0.5}'}, "'label' must be a whole number >= 0, or a name"),
        ({"1.png": png(), "1.json": b"[1]"}, "must be an object"),
        ({"1.png": png(), "1.json": b"{"}, r"1\.json must be JSON"),
        ({"1.png": png(), "1.cls": b"0", "1.json": b'{"label": 1}'}, "must have one label; it has 0 and 1"),
        ({"1.png": png(), "1.json": b'{"label": "a", "class_name": "b"}'}, "one label; it has 'a' and 'b'"),
        ([("1.png", png()), ("1.cls", b"0"), ("1.cls", b"1")], r"must have one label in \.cls"),
        ({"1.png": png(), "1.jpg": png(), "1.cls": b"0"}, r"must have one image; it has '1\.png' and '1\.jpg'"),
        ({"1.txt": b"a cat"}, "must hold images, each with its label beside it"),
        ({}, "it is empty|must hold images"),
        ({"/1.png": png(), "1.cls": b"0"}, "must hold names inside of it"),
        ({"1.png": png(), "1.json": json.dumps({"a": "b" * 2**20, "label": 0}).encode()}, "at most 1,048,576 bytes"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, members, message):
    tar(tmp_path / "train-0.tar", samples(range(4)))
    tar(tmp_path / "train-1.tar", members)
    with pytest.raises(ValueError, match=f"train-1.tar.*({message})"):
        data.source(tmp_path, "train")
    assert values(data.source(tmp_path / "train-0.tar", "train")) == [(n, n % 2) for n in range(4)]


def test_cut_and_damaged_archives_are_refused(tmp_path):
    path = tar(tmp_path / "s-0.tar", samples(range(4)))
    content = path.read_bytes()
    whole = 4 * 2 * 1024  # a header and a block of content for each file
    for length, message in ((whole - 900, "ends within|cut"), (whole, "it was cut: it has no end"), (300, "")):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=rf"s-0\.tar cannot be read as a tar archive.*{message}"):
            data.source([path], None)
    flipped = bytearray(content)
    flipped[whole // 2] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(ValueError, match=r"s-0\.tar cannot be read as a tar archive: the header of a member"):
        data.source([path], None)
    shutil.copy(tar(tmp_path / "b.tar", samples(range(4))), path)
    assert len(data.source([path], None)) == 4


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s-{0000..0003}.tar", r"there is no file .*s-0003\.tar"),
        ("s-{3..1}.tar", r"a range must rise, .* received \{3\.\.1\}"),
        ("s-{0}.tar", "braces must hold a range"),
        ("s-{0000..9999}{0000..9999}.tar", "at most 1,000,000 files"),
        (["s-0000.tar", "s-0000.tar"], "each file once"),
        (["s-0000.tar", "notes.txt"], r"uncompressed \.tar files, or \.parquet files; received .*notes\.txt"),
        ([], "must name at least one file"),
        ([3], "path_or_name must be paths; received 3"),
    ],
)
def test_patterns_and_lists_that_mean_no_shards(tmp_path, monkeypatch, place, message):
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        tar(tmp_path / f"s-{i:04}.tar", samples(range(2)))
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=message):
        data.source(place, None)


def test_names_that_tell_several_splits_or_not_all_are_refused(tmp_path):
    tar(tmp_path / "a" / "train-test-0.tar", samples(range(2)))
    with pytest.raises(ValueError, match=r"train-test-0\.tar must belong to one split; its name tells train and test"):
        data.source(tmp_path / "a", "train")
    for name in ("train-0", "more"):
        tar(tmp_path / "b" / f"{name}.tar", samples(range(2)))
    with pytest.raises(ValueError, match=r"more\.tar tells none"):
        data.source(tmp_path / "b", "train")
    for name in ("small", "large"):
        tar(tmp_path / "c" / name / "train.tar", samples(range(2)))
    with pytest.raises(ValueError, match="the files of a split in one folder"):
        data.source(tmp_path / "c", "train")


@pytest.fixture
def indexed(monkeypatch):
    """The names of the shards that are indexed."""
    found = []
    real = shard_index.index_shard
    monkeypatch.setattr(shard_index, "index_shard", lambda path: found.append(os.path.basename(path)) or real(path))
    return found


def test_shards_are_indexed_once(shards, indexed):
    names = ["shard-0000.tar", "shard-0001.tar", "shard-0002.tar"]
    assert values(data.source(shards / "shard-0001.tar", None)) == EXPECTED[10:20]
    assert values(data.source(shards, None)) == EXPECTED
    assert sorted(indexed) == names
    assert values(data.source(shards, None)) == EXPECTED
    assert len(indexed) == 3
    # Another content, of the same size at another time.
    tar(shards / "shard-0001.tar", samples(range(50, 60)))
    os.utime(shards / "shard-0001.tar", (LONG_AGO + 1, LONG_AGO + 1))
    assert values(data.source(shards, None))[10:20] == [(n, n % 2) for n in range(50, 60)]
    assert indexed[3:] == ["shard-0001.tar"]
    # Copied with its times, the index goes along.
    shutil.copytree(shards, shards / "copy")
    assert len(data.source(shards / "copy", None)) == 30
    assert len(indexed) == 4


def test_labels_that_were_corrected_count_whatever_the_time_of_the_shard(shards, indexed):
    assert values(data.source(shards, None)) == EXPECTED
    tar(shards / "shard-0001.tar", samples(range(10, 20), label=lambda n, _: {"cls": str(1 - n % 2).encode()}))
    assert values(data.source(shards, None))[10:20] == [(n, 1 - n % 2) for n in range(10, 20)]
    assert indexed[3:] == ["shard-0001.tar"]


def test_shards_that_were_just_written_are_indexed_again(tmp_path, indexed):
    tar(tmp_path / "s-0.tar", samples(range(4)), settled=False)
    for _ in range(2):
        data.source(tmp_path, None)
    assert len(indexed) == 2


def refuse_writing(folder, monkeypatch):
    real = kept_index.written_aside

    def refused(path):
        if path.parent == folder:
            raise PermissionError(13, "read-only")
        return real(path)

    monkeypatch.setattr(kept_index, "written_aside", refused)


def test_the_index_lies_in_the_cache_folder_where_the_place_cannot_be_written(shards, indexed, monkeypatch):
    refuse_writing(shards, monkeypatch)
    for _ in range(2):
        assert values(data.source(shards, None)) == EXPECTED
    assert len(indexed) == 3
    assert not list(shards.glob(".keras_robust*"))


def test_a_stale_index_that_cannot_be_replaced_hides_none_in_the_cache_folder(shards, indexed, monkeypatch):
    data.source(shards, None)
    tar(shards / "shard-0001.tar", samples(range(50, 60)))
    os.utime(shards / "shard-0001.tar", (LONG_AGO + 1, LONG_AGO + 1))
    refuse_writing(shards, monkeypatch)
    for _ in range(2):
        assert values(data.source(shards, None))[10:20] == [(n, n % 2) for n in range(50, 60)]
    assert indexed[3:] == ["shard-0001.tar"]


@pytest.mark.parametrize("damage", ["cut", "other numbers", "other arrays", "fewer places", "text"])
def test_damaged_indices_are_made_anew(shards, indexed, damage):
    data.source(shards, None)
    (path,) = shards.glob(".keras_robust-shards.npz")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-400])
    elif damage == "text":
        path.write_text("no archive")
    else:
        arrays = dict(np.load(path))
        if damage == "other numbers":
            arrays["places"][:, 0] += 10**6
        elif damage == "fewer places":
            arrays["places"] = arrays["places"][:-1]
        else:
            arrays["labels"] = arrays["labels"][:-1]
            arrays["stats"] = arrays["stats"][:, :3]
        np.savez(path, **arrays)
    assert values(data.source(shards, None)) == EXPECTED
    assert len(indexed) == (4 if damage == "fewer places" else 6)  # of the last shard alone


def test_an_index_that_is_wrong_all_the_same_is_noticed(shards, monkeypatch):
    """Of a shard with the size and time of another: by the header before each image."""
    monkeypatch.setattr(shard_index, "LABELS_READ_AGAIN", 0)
    data.source(shards, None)
    first, *rest = (f"{n:04}" for n in range(10))
    members = samples(range(10))
    # The first sample last.
    moved = {f"{key}.{ending}": members[f"{key}.{ending}"] for key in (*rest, first) for ending in ("cls", "png")}
    tar(shards / "shard-0000.tar", moved)
    with pytest.raises(ValueError, match=r"shard-0000\.tar:0000\.png is not where it was: the shard has changed"):
        data.source(shards, None).image(0)


def test_shards_that_change_under_a_reader_are_noticed(shards):
    source = pickle.dumps(data.source(shards, None))
    os.utime(shards / "shard-0002.tar", (LONG_AGO + 9, LONG_AGO + 9))
    source = pickle.loads(source)
    assert source.image(0)[0, 0, 0] == 0
    with pytest.raises(ValueError, match=r"shard-0002\.tar has changed since the data set was opened"):
        source.image(29)
    os.utime(shards / "shard-0000.tar", (LONG_AGO + 9, LONG_AGO + 9))  # which is open
    with pytest.raises(ValueError, match=r"shard-0000\.tar has changed since the data set was opened"):
        source.image(1)
    os.remove(shards / "shard-0001.tar")
    with pytest.raises(ValueError, match=r"shard-0001\.tar cannot be read: No such file"):
        source.image(10)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux lists a process's open files there")
def test_many_shards_need_few_open_files(shards, monkeypatch):
    monkeypatch.setattr(webdataset, "MOST_OPEN", 1)
    source = data.source(shards, None)
    for i in (0, 10, 20, 5, 15, 25):
        assert source.image(i)[0, 0, 0] == i
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    targets = [os.readlink(link) for link in links if os.path.islink(link)]
    assert [target for target in targets if target.startswith(str(shards))] == [str(shards / "shard-0002.tar")]


def test_corrupt_images_are_skipped_or_named(tmp_path):
    tar(tmp_path / "s.tar", {**samples(range(8)), "0003.png": b"no image"})
    source = data.source(tmp_path, None)
    with pytest.raises(ValueError, match=r"s\.tar:0003\.png cannot be read as an image"):
        source.image(3)
    train = TrainPipeline(source, "basic", 8, batch_size=8, workers=0, engine="grain", skip_corrupt=True)
    train.batch(0)
    assert [*train.skipped] == [source.name(3)]


def test_samples_and_shards_of_batches(shards):
    source = data.source(shards, None)
    sample = source.sample(7)
    assert len(sample) == 7
    assert {*values(sample)} <= {*EXPECTED}
    options = {"batch_size": 8, "workers": 0, "engine": "grain"}
    whole = TrainPipeline(source, "basic", 8, **options).batch(5)
    halves = [TrainPipeline(source, "basic", 8, **options, shard=(i, 2)).batch(5) for i in (1, 2)]
    for computed, expected in zip(map(np.concatenate, zip(*halves)), whole, strict=True):
        np.testing.assert_array_equal(computed, expected)


def test_evaluation_chooses_among_them(shards):
    dataset = open_dataset(sorted(shards.glob("*.tar")))
    selection = select(dataset, num_classes=2, n_examples=5)
    assert [dataset.image(index)[0, 0, 0] % 2 for index in selection.index] == selection.labels.tolist()
    assert {*selection.names} <= {f"shard-000{n // 10}.tar:{n:04}.png" for n in range(30)}


def test_shards_of_one_name_in_several_folders(tmp_path):
    for folder, numbers in (("a", range(4)), ("b", range(4, 8))):
        tar(tmp_path / folder / "shard-0.tar", samples(numbers))
    dataset = data.source(f"{tmp_path}/{{a,b}}/shard-0.tar", None)
    assert [dataset.identifier(index) for index in (0, 7)] == ["a/shard-0.tar:0000.png", "b/shard-0.tar:0007.png"]


def test_read_by_a_process_without_a_framework(shards, tmp_path_factory):
    path = tmp_path_factory.mktemp("pickled") / "source"
    path.write_bytes(pickle.dumps(data.source(shards, None)))
    script = (
        "import pickle, sys; source = pickle.load(open(sys.argv[1], 'rb')); assert source.image(21)[0, 0, 0] == 21; "
        "assert not {'keras', 'tensorflow', 'jax', 'torch', 'rich'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", script, path], check=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
