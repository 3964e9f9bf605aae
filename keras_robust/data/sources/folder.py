"""Images in one folder per class."""

import os
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from keras_robust.data.sources.base import EncodedSource
from keras_robust.data.sources.splits import files_by_class


class ImageFolder(EncodedSource):
    """Images in one folder per class.

    Either `root/train/<class>/*` beside `root/val/<class>/*` or `root/test/<class>/*`, or `root/<class>/*` alone, of
    which a fifth of each class (at least one image) becomes the validation split: see `splits.files_by_class`.

    Args:
        root: the folder.
        split: "train", "val" or "test"; None takes all images of `root/<class>/*`.
        seed: of the split of a folder that has none of its own.

    Attributes:
        paths: the file of each image, sorted by class and name.

    Raises:
        ValueError: `root` is no folder, holds no classes or not this split, a class has no files (or only one, where a
            split is to be drawn), or the classes of the splits differ. `image` raises it, with the file's name, for a
            file that is no readable image.
    """

    def __init__(self, root: str | PathLike, split: str | None, seed: int = 0) -> None:
        if not Path(root).is_dir():
            raise ValueError(f"root must be a folder; received {str(root)!r}.")
        files = files_by_class(str(root), _names(os.fspath(root)), split, seed)
        self.class_names = tuple(files)
        self.paths = [os.path.join(root, name) for names in files.values() for name in names]
        self.labels = np.repeat(np.arange(len(files)), [len(names) for names in files.values()])

    def name(self, index: int) -> str:
        return self.paths[index]

    def encoded(self, index: int) -> bytes:
        with open(self.paths[index], "rb") as file:
            return file.read()


def _names(root: str) -> Iterator[Any]:
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        place = Path(os.path.relpath(folder, root)).as_posix()
        prefix = "" if place == "." else place + "/"
        yield from (f"{prefix}{name}/" for name in folders)
        yield from (prefix + name for name in files)
