"""Images in one folder per class."""

import os
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np

from keras_robust.data.sources.base import EncodedSource
from keras_robust.data.sources.splits import files_of
from keras_robust.files import printable, read_file

MAX_FILE_BYTES = 256 * 2**20  # an image of the largest number of pixels accepted, uncompressed


class ImageFolder(EncodedSource):
    """Images in one folder per class.

    Either `root/train/<class>/*` beside `root/val/<class>/*` or `root/test/<class>/*`, or `root/<class>/*` alone; where
    there is no validation part, a fifth of each class becomes one: see `splits.files_of`. Links are followed, and what
    they lead to is taken once.

    Args:
        root: the folder.
        split: "train", "val" or "test"; "held_out" for "val" or else "test", or all images where there are no splits;
            "whole_train" for a train of which nothing is held out; None takes all images of `root/<class>/*`.
        seed: of a validation part that is drawn.

    Attributes:
        paths: the file of each image, by class (see `class_names.label_order`) and name.
        all_regular: whether none of the files is a pipe, a device or a link that leads nowhere.

    Raises:
        ValueError: `root` is no folder, holds no classes or not this split, a class has no files (or only one, where a
            split is to be drawn), the classes of the splits differ, folders that look like splits are not understood,
            or one file is in two classes. `image` raises it, with the file's name, for what is no readable image.
    """

    def __init__(self, root: str | PathLike, split: str | None, seed: int = 0) -> None:
        if not Path(root).is_dir():
            raise ValueError(f"root must be a folder; received {str(root)!r}.")
        root = os.fspath(root)
        special: list[str] = []
        try:
            found = files_of(str(root), _names(root, special), split, seed)
        except OSError as error:
            raise ValueError(f"{printable(root)} cannot be listed: {error}") from error
        self.all_regular = not special
        self.class_names = tuple(printable(name) for name in found.by_class)
        self.note = found.note
        self._classes_in = os.path.join(root, found.classes_in)
        names = [name for members in found.by_class.values() for name in members]
        labels = np.repeat(np.arange(len(found.by_class)), [len(members) for members in found.by_class.values()])
        self.paths = [os.path.join(root, name) for name in names]
        kept = _without_repetitions(self.paths, labels)
        self.paths, self.labels = [self.paths[place] for place in kept], labels[kept]

    def name(self, index: int) -> str:
        return printable(self.paths[index])

    def identifier(self, index: int) -> str:
        return printable(Path(os.path.relpath(self.paths[index], self._classes_in)).as_posix())

    def file_size(self, index: int) -> int | None:
        try:
            return os.stat(self.paths[index]).st_size
        except OSError:  # which reading it will tell
            return None

    def encoded(self, index: int) -> bytes:
        return read_file(self.paths[index], MAX_FILE_BYTES)


def _names(root: str, special: list[str]) -> Iterator[str]:
    """Files and folders below `root`, with `/`; folders that links lead to come last, and only if they are new.

    Pipes, devices and links that lead nowhere are added to `special`.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [("", root)]
    links: list[tuple[str, str]] = []
    while waiting or links:
        prefix, folder = waiting.pop() if waiting else links.pop(0)
        status = os.stat(folder)
        place = (status.st_dev, status.st_ino)
        if place in seen:
            continue
        seen.add(place)
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name, reverse=True):
                name = f"{prefix}{entry.name}"
                if not entry.is_dir():
                    yield name
                    if not entry.is_file():
                        special.append(name)
                elif not entry.is_symlink():
                    yield name + "/"
                    waiting.append((name + "/", entry.path))
                else:
                    if not _leads_up(entry.path):
                        yield name + "/"
                    links.insert(0, (name + "/", entry.path))


def _leads_up(link: str) -> bool:
    """Whether a link leads to a folder that it lies in."""
    target = os.path.realpath(link)
    return os.path.commonpath([target, os.path.realpath(os.path.dirname(link))]) == target


def _without_repetitions(paths: list[str], labels: np.ndarray) -> np.ndarray:
    """Places of the files without those that are links to others of the same class."""
    if not any(os.path.islink(path) for path in paths):
        return np.arange(len(paths))
    kept: list[int] = []
    first: dict[str, int] = {}
    for place, path in enumerate(paths):
        real = os.path.realpath(path)
        other = first.setdefault(real, place)
        if labels[other] != labels[place]:
            raise ValueError(
                f"an image must be of one class; {printable(paths[other])} and {printable(path)} are the same file."
            )
        if other == place:
            kept.append(place)
    return np.array(kept)
