"""Parquet files in the layout of the Hugging Face Hub: columns, classes, splits, random access, what is wrong."""

import pickle
import sys
import threading

import numpy as np
import pytest

from keras_robust import data
from keras_robust.data import TrainPipeline
from keras_robust.data.sources import Parquet, parquet
from tests.data import shards
from tests.data.shards import png, values

pytestmark = pytest.mark.once
arrow = pytest.importorskip("pyarrow")


@pytest.fixture
def hub(tmp_path):
    """A folder as it comes from the Hub: two files of training, one of validation, a test part without labels."""
    (tmp_path / "README.md").write_text("# Cats and dogs")
    for i in range(2):
        shards.parquet(tmp_path / "data" / f"train-{i:05}-of-00002.parquet", range(10 * i, 10 * i + 10))
    shards.parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", range(20, 26))
    unknown = arrow.array([-1, -1], arrow.int64())
    shards.parquet(tmp_path / "data" / "test-00000-of-00001.parquet", range(30, 32), label=unknown)
    return tmp_path


def test_folders_of_the_hub(hub):
    train, val = (data.source(hub, split) for split in ("train", "val"))
    assert isinstance(train, Parquet)
    assert values(train) == [(n, n % 2) for n in range(20)]
    assert values(val) == values(data.source(hub, "held_out")) == [(n, n % 2) for n in range(20, 26)]
    assert train.class_names == val.class_names == ("cat", "dog")
    assert train.name(13) == f"{hub}/data/train-00001-of-00002.parquet: row 3"
    assert train.identifier(13) == "train-00001-of-00002.parquet: row 3"
    pattern = f"{hub}/data/train-{{00000..00001}}-of-00002.parquet"
    assert values(data.source(pattern, "whole_train")) == values(train)
    with pytest.raises(ValueError, match=r"test-00000-of-00001\.parquet: row 0 must have a label in \[0, 1\]; .* -1"):
        data.source(hub, "test")


def test_files_of_one_name_in_several_folders(tmp_path):
    for folder in "ab":
        shards.parquet(tmp_path / folder / "0.parquet", range(2))
    source = data.source(f"{tmp_path}/{{a,b}}/0.parquet", None)
    assert [source.identifier(index) for index in (0, 3)] == ["a/0.parquet: row 0", "b/0.parquet: row 1"]


@pytest.mark.parametrize("form", ["struct", "binary"])
@pytest.mark.parametrize("names", [("cat", "dog"), None])
def test_columns_and_names(tmp_path, form, names):
    path = shards.parquet(tmp_path / "photos.parquet", range(10), names, form)
    source = data.source(path, None)
    assert values(source) == [(n, n % 2) for n in range(10)]
    assert source.class_names == (names or ("0", "1"))
    assert data.source(path, None, class_names=["x", "y"]).class_names == ("x", "y")
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    assert data.source(path, None).class_names == (names or ("ant", "bee"))
    train, val = (data.source(path, split) for split in ("train", "val"))
    assert sorted(values(train) + values(val)) == values(source)
    assert len(val) == 2


def test_columns_that_the_hub_calls_otherwise(tmp_path):
    path = shards.parquet(tmp_path / "a.parquet", range(4), columns=("img", "fine_label"))
    assert values(data.source(path, None)) == [(n, n % 2) for n in range(4)]


def write(path, **columns):
    from pyarrow import parquet as files

    files.write_table(arrow.table(columns), path)


IMAGES = [{"bytes": png(n), "path": None} for n in range(3)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0, 1, 0]}, "must have a column 'image', or one that is noted as Image; its columns are 'label'"),
        ({"image": IMAGES}, "must have a column 'label', or one that is noted as ClassLabel"),
        (
            {"image": [1, 2, 3], "label": [0, 1, 0]},
            "column 'image' must be binary, or a struct with 'bytes'; it is int64",
        ),
        ({"image": [{"path": "a"}] * 3, "label": [0, 1, 0]}, "must be binary, or a struct with 'bytes'; it is struct"),
        ({"image": IMAGES, "label": ["a", "b", "a"]}, "column 'label' must hold whole numbers; it is string"),
        ({"image": IMAGES, "label": [0, None, 0]}, "must have a label in each row; 1 have none"),
        ({"image": IMAGES, "label": [0, -1, 0]}, r"row 1 must have a label in \[0, 0\]; received -1"),
        ({"image": IMAGES[:0] or arrow.array([], arrow.binary()), "label": arrow.array([], arrow.int64())}, "no rows"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, columns, message):
    write(tmp_path / "a.parquet", **columns)
    with pytest.raises(ValueError, match=f"a.parquet.*{message}"):
        data.source(tmp_path / "a.parquet", None)


def test_labels_beyond_the_classes_and_files_of_other_classes_are_refused(tmp_path):
    path = shards.parquet(tmp_path / "a.parquet", range(4), names=("cat",))
    with pytest.raises(ValueError, match=r"a\.parquet: row 1 must have a label in \[0, 0\]; received 1"):
        data.source(path, None)
    shards.parquet(tmp_path / "b.parquet", range(4), names=("dog", "cat"))
    with pytest.raises(ValueError, match=r"b\.parquet must have .* of .*a\.parquet; label 0 is 'dog' here and 'cat'"):
        data.source(tmp_path, None)


def test_damaged_files_are_named(tmp_path):
    path = shards.parquet(tmp_path / "a.parquet", range(10))
    content = path.read_bytes()
    source = data.source(path, None)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"a\.parquet cannot be read as a Parquet file"):
        data.source(path, None)
    with pytest.raises(ValueError, match=r"a\.parquet has changed since the data set was opened"):
        source.image(3)
    table = arrow.table({"image": IMAGES, "label": [0, 1, 0]}).replace_schema_metadata({"huggingface": "{"})
    arrow.parquet.write_table(table, path)
    with pytest.raises(ValueError, match=r"a\.parquet: its note of the Hugging Face Hub is damaged"):
        data.source(path, None)


def test_rows_without_an_image_are_corrupt_images(tmp_path):
    write(
        tmp_path / "a.parquet", image=[*IMAGES, {"bytes": None, "path": "elsewhere.jpg"}, None], label=[0, 1, 0, 1, 0]
    )
    source = data.source(tmp_path / "a.parquet", None)
    for row in (3, 4):
        with pytest.raises(ValueError, match=rf"a\.parquet: row {row} has no image in it"):
            source.image(row)
    train = TrainPipeline(source, "basic", 8, batch_size=5, workers=0, engine="grain", skip_corrupt=True)
    train.batch(0)
    assert {*train.skipped} == {source.name(3), source.name(4)}


def test_labels_are_bounded(tmp_path):
    write(tmp_path / "a.parquet", image=IMAGES, label=[0, 10**12, 0])
    with pytest.raises(ValueError, match=r"a\.parquet: row 1 must have a label in \[0, 999999\]; received 10{12}"):
        data.source(tmp_path / "a.parquet", None)


def test_row_groups_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 100)
    path = shards.parquet(tmp_path / "a.parquet", range(10), group=10)
    with pytest.raises(ValueError, match=r"row groups of at most 100 bytes.*row group 0 has"):
        data.source(path, None)


def test_images_that_are_stored_once_and_repeated_are_bounded(tmp_path, monkeypatch):
    """In a dictionary: what a file says of its size counts each image once."""
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 2**16)
    names, pixels = ("often", "seldom"), np.random.default_rng(0).bytes(2**13)
    for name, count in zip(names, (1000, 7)):
        write(tmp_path / f"{name}.parquet", image=[pixels] * count, label=[0] * count)
    often, seldom = (data.source(tmp_path / f"{name}.parquet", None) for name in names)
    with pytest.raises(
        ValueError, match=r"often\.parquet must have row groups of at most 65,536 bytes.* 0 has [\d,]+ or"
    ):
        often.encoded(3)
    assert seldom.encoded(6) == pixels


def test_rows_are_bounded(tmp_path, monkeypatch):
    path = shards.parquet(tmp_path / "a.parquet", range(10))
    monkeypatch.setattr(parquet, "FREE_BYTES", 79)
    monkeypatch.setattr(parquet, "MAX_RATIO", 0)
    with pytest.raises(ValueError, match=r"a\.parquet must have an image in each row; it claims 10 rows in"):
        data.source(path, None)
    monkeypatch.setattr(parquet, "FREE_BYTES", 80)
    assert len(data.source(path, None)) == 10


def test_few_row_groups_are_kept(hub, monkeypatch):
    read = []
    real = parquet._read_images
    monkeypatch.setattr(parquet, "_read_images", lambda *place: read.append(place[1]) or real(*place))
    source = data.source(hub, "train")
    for index in (0, 1, 5, 2, 3):
        source.image(index)
    assert read == [0, 1]
    monkeypatch.setattr(parquet, "CACHED_BYTES", 1)
    for index in (9, 8, 0):
        source.image(index)
    assert read == [0, 1, 2, 0]  # the last one read always stays
    assert len(source._cache) == 1


def test_by_threads_and_after_pickling(hub):
    source = data.source(hub, "train")
    source.image(0)
    again = pickle.loads(pickle.dumps(source))
    assert values(again) == values(source)
    wrong = []

    def look(seed):
        for index in np.random.default_rng(seed).integers(0, 20, 50).tolist():
            if again.image(index)[0, 0, 0] != index:
                wrong.append(index)

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_without_pyarrow(tmp_path, monkeypatch):
    path = shards.parquet(tmp_path / "a.parquet", range(4))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-robust\[parquet\]'"):
        data.source(path, None)
