"""The kept listing of a large folder: it counts as long as nothing has changed, and is never served after that."""

import os
import shutil

import numpy as np
import pytest

from keras_robust import data
from keras_robust.data.sources import kept_index, listing
from tests.data.shards import png

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def listings(monkeypatch, tmp_path_factory):
    """The folders that are listed anew; of any size, and whenever they were changed."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(listing, "KEPT_FROM", 1)
    monkeypatch.setattr(kept_index, "SETTLED_SECONDS", -60.0)
    found, real = [], listing._new
    monkeypatch.setattr(listing, "_new", lambda root: found.append(root) or real(root))
    return found


@pytest.fixture
def folder(tmp_path):
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            for i in range(3):
                path = tmp_path / "images" / part / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(i))
    return tmp_path / "images"


def names(folder, split="train"):
    source = data.source(folder, split)
    assert [source.identifier(i) for i in range(len(source))] == [
        os.path.relpath(path, folder / split) for path in source.paths
    ]
    return [source.identifier(i) for i in range(len(source))]


EXPECTED = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)]


def test_a_large_folder_is_listed_once(folder, listings):
    for split in ("train", "val", "train"):
        assert names(folder, split) == EXPECTED
    assert listings == [str(folder)]


def add(folder):
    (folder / "train/cat/9.png").write_bytes(png())
    return sorted([*EXPECTED, "cat/9.png"])


def remove(folder):
    (folder / "train/dog/1.png").unlink()
    return [name for name in EXPECTED if name != "dog/1.png"]


def rename(folder):
    (folder / "train/dog/1.png").rename(folder / "train/dog/7.png")
    return sorted({*EXPECTED, "dog/7.png"} - {"dog/1.png"})


def move(folder):
    (folder / "train/dog/1.png").rename(folder / "train/cat/8.png")
    return sorted({*EXPECTED, "cat/8.png"} - {"dog/1.png"})


def below(folder):
    (folder / "train/cat/more").mkdir()
    (folder / "train/cat/more/1.png").write_bytes(png())
    return sorted([*EXPECTED, "cat/more/1.png"])


def another_class(folder):
    for part in ("train", "val"):
        shutil.copytree(folder / part / "dog", folder / part / "emu")
    return [*EXPECTED, *(f"emu/{i}.png" for i in range(3))]


def replaced(folder):
    """A folder of the same name, whose times are set to those of the one before."""
    status = os.stat(folder / "train/dog")
    shutil.copytree(folder / "train/dog", folder / "other")
    (folder / "other/5.png").write_bytes(png())
    shutil.rmtree(folder / "train/dog")
    (folder / "other").rename(folder / "train/dog")
    os.utime(folder / "train/dog", ns=(status.st_atime_ns, status.st_mtime_ns))
    return [*EXPECTED, "dog/5.png"]


@pytest.mark.parametrize("change", [add, remove, rename, move, below, another_class, replaced])
def test_what_changes_is_seen(folder, listings, change):
    names(folder)
    expected = change(folder)
    assert names(folder) == expected
    assert names(folder) == expected
    assert len(listings) == 2


def test_whole_folders_of_splits_are_compared_by_name(folder, listings):
    """The index lies beside them, so that the folder's own times say nothing."""
    names(folder)
    assert (folder / ".keras_robust-listing.npz").is_file()
    shutil.copytree(folder / "val", folder / "test")
    assert names(folder, "test") == EXPECTED
    (folder / "LICENSE").write_text("")
    assert names(folder) == EXPECTED
    assert len(listings) == 3


def test_folders_behind_links_are_looked_at_too(folder, listings, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.move(folder / "train/dog", elsewhere)
    (folder / "train/dog").symlink_to(elsewhere)
    (folder / "train/cat/4.png").symlink_to(folder / "train/cat/0.png")
    assert names(folder) == names(folder) == EXPECTED
    assert len(listings) == 1
    (elsewhere / "3.png").write_bytes(png())
    assert names(folder) == [*EXPECTED, "dog/3.png"]
    other = tmp_path / "other"
    shutil.copytree(elsewhere, other)
    (other / "6.png").write_bytes(png())
    elsewhere.rename(tmp_path / "gone")
    other.rename(elsewhere)
    assert names(folder) == [*EXPECTED, "dog/3.png", "dog/6.png"]
    assert len(listings) == 3


def test_what_was_just_changed_is_not_kept(folder, listings, monkeypatch):
    monkeypatch.setattr(kept_index, "SETTLED_SECONDS", 60.0)
    for _ in range(2):
        assert names(folder) == EXPECTED
    assert len(listings) == 2
    assert not list(folder.glob(".keras*"))


def test_small_folders_are_not_kept(folder, listings, monkeypatch):
    monkeypatch.setattr(listing, "KEPT_FROM", 1000)
    names(folder)
    assert not list(folder.glob(".keras*"))


def test_damaged_listings_are_made_anew(folder, listings):
    names(folder)
    path = folder / ".keras_robust-listing.npz"
    for content in (path.read_bytes()[:-300], b"no archive"):
        path.write_bytes(content)
        assert names(folder) == EXPECTED
    np.savez(path, version=np.array([kept_index.VERSION]), folders=np.zeros(3))
    assert names(folder) == EXPECTED
    assert len(listings) == 4


def test_special_files_are_remembered(folder, listings):
    os.mkfifo(folder / "train/cat/pipe.png")
    for _ in range(2):
        source = data.source(folder, "train")
        assert not source.all_regular
        with pytest.raises(ValueError, match=r"pipe\.png must be a regular file"):
            source.image(3)
    assert len(listings) == 1
