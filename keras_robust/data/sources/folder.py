"""Images in one folder per class."""

import os
from os import PathLike
from pathlib import Path

import numpy as np

from keras_robust.data.sources.base import EncodedSource
from keras_robust.data.sources.listing import list_folder
from keras_robust.data.sources.packed_names import PackedNames
from keras_robust.data.sources.splits import files_of
from keras_robust.files import printable, read_file

MAX_FILE_BYTES = 256 * 2**20  # an image of the largest number of pixels accepted, uncompressed


class ImageFolder(EncodedSource):
    """Images in one folder per class.

    Either `root/train/<class>/*` beside `root/val/<class>/*` or `root/test/<class>/*`, or `root/<class>/*` alone; where
    there is no validation part, a fifth of each class becomes one: see `splits.files_of`. Links are followed, and what
    they lead to is taken once. The list of a large folder is kept: see `listing`.

    Args:
        root: the folder.
        split: "train", "val" or "test"; "held_out" for "val" or else "test", or all images where there are no splits;
            "whole_train" for a train of which nothing is held out; None takes all images of `root/<class>/*`.
        seed: of a validation part that is drawn.

    Attributes:
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
        try:
            listing = list_folder(str(root))
        except OSError as error:
            raise ValueError(f"{printable(root)} cannot be listed: {error}") from error
        found = files_of(str(root), listing.names, split, seed)
        self.all_regular = listing.all_regular
        self.class_names = tuple(printable(name) for name in found.by_class)
        self.note = found.note
        self._classes_in = os.path.join(root, found.classes_in)
        names = [name for members in found.by_class.values() for name in members]
        labels = np.repeat(np.arange(len(found.by_class)), [len(members) for members in found.by_class.values()])
        kept = _without_repetitions(root, names, labels, listing.links)
        if kept is not None:
            names, labels = [names[place] for place in kept], labels[kept]
        self._root, self._names, self.labels = root, PackedNames.of(names), labels

    @property
    def paths(self) -> list[str]:
        """The file of each image, by class (see `class_names.label_order`) and name."""
        return [os.path.join(self._root, name) for name in self._names]

    def _path(self, index: int) -> str:
        return os.path.join(self._root, self._names[int(index)])

    def name(self, index: int) -> str:
        return printable(self._path(index))

    def identifier(self, index: int) -> str:
        return printable(Path(os.path.relpath(self._path(index), self._classes_in)).as_posix())

    def file_size(self, index: int) -> int | None:
        try:
            return os.stat(self._path(index)).st_size
        except OSError:  # which reading it will tell
            return None

    def encoded(self, index: int) -> bytes:
        return read_file(self._path(index), MAX_FILE_BYTES)


def _without_repetitions(root: str, names: list[str], labels: np.ndarray, links: frozenset[str]) -> list[int] | None:
    """Places of the files without those that are links to others of the same class; None for all of them."""
    if links.isdisjoint(names):
        return None
    kept: list[int] = []
    first: dict[str, int] = {}
    for place, name in enumerate(names):
        other = first.setdefault(os.path.realpath(os.path.join(root, name)), place)
        if labels[other] != labels[place]:
            both = (printable(os.path.join(root, names[each])) for each in (other, place))
            raise ValueError(f"an image must be of one class; {' and '.join(both)} are the same file.")
        if other == place:
            kept.append(place)
    return kept
