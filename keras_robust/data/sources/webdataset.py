"""WebDataset shards: tar archives of images with their labels beside them, read at random where they lie."""

import tarfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from keras_robust.data.class_names import label_order
from keras_robust.data.sources.base import EncodedSource
from keras_robust.data.sources.packed_names import PackedNames
from keras_robust.data.sources.shard_index import BLOCK, ShardIndex, shard_indices
from keras_robust.data.sources.shards import (
    Shards,
    check_unchanged,
    checked_names,
    names_beside,
    short_names,
    split_of,
)
from keras_robust.data.sources.tar import TarContent
from keras_robust.files import printable

MOST_OPEN = 128  # files of a process; many systems allow 1,024


class WebDataset(EncodedSource):
    """Images in shards as WebDataset writes them: `KEY.jpg` (or another image) beside `KEY.cls` or `KEY.json`.

    `.cls` holds the label, a whole number; `.json` an object with the label under "label" or "cls", a number or the
    class's name, and, if you like, the class's name under "class_name". Other files of a sample are passed over.

    Shards are indexed once: where each image lies in them, and its label. The index is kept beside them (or in the
    user's cache folder) and counts while sizes and times of the shards are the same, and the labels that are read
    again, a few of each shard. Images are then read at random, so that a step's batch is the same whatever the number
    of workers, by any number of threads and processes.

    Names of the classes are those given, else those in the `.json` files, else those in a `classes.txt` beside the
    shards (one a line, in the order of the labels), else the numbers. The classes are those of the training shards,
    where there are any.

    Args:
        shards: the files, uncompressed.
        split: "train", "val" or "test", as the words in the files' names tell it; otherwise as in `ImageFolder`.
        seed: of a validation part that is drawn.
        class_names: in the order of the labels.

    Raises:
        ValueError: a shard that is no archive or was cut; one without images; an image without a label, with two or
            with one that is no class; two images in a sample; as for splits in `ImageFolder`. The message names the
            file. `image` raises it, too, for what is no readable image, and for a shard that has changed meanwhile.
    """

    def __init__(
        self, shards: Shards, split: str | None, seed: int = 0, class_names: Sequence[str] | None = None
    ) -> None:
        chosen = split_of(shards, split)
        indices = shard_indices([*chosen.paths, *chosen.others])
        own, others = ([indices[path] for path in paths] for paths in (chosen.paths, chosen.others))
        self._paths, self._short_names = chosen.paths, short_names(chosen.paths)
        self._stamps = [(index.size, index.changed) for index in own]
        self._shard_of = np.repeat(np.arange(len(own)), [len(index.labels) for index in own])
        self._members = PackedNames(np.concatenate([index.names for index in own]))
        of_classes = others or own
        given = checked_names(class_names, "class_names") if class_names is not None else None
        if others and given is None:
            _names_in([*others, *own])  # refuses labels that are called otherwise in training
        names = given or _names_in(of_classes) or _names_or_none(names_beside(shards), shards)
        self.class_names, labels = _classes(names, of_classes, own, self._where)
        self._places = np.concatenate([index.places for index in own])
        places = chosen.places(shards, labels, self.class_names, seed)
        self._rows = np.arange(len(labels)) if places is None else places
        self.labels, self.note = labels[self._rows], chosen.note(seed)
        self._open_anew()

    def name(self, index: int) -> str:
        return self._where(int(self._rows[index]))

    def identifier(self, index: int) -> str:
        row = int(self._rows[index])
        return printable(f"{self._short_names[self._shard_of[row]]}:{self._members[row]}")

    def file_size(self, index: int) -> int | None:
        return int(self._places[self._rows[index], 1])

    def encoded(self, index: int) -> bytes:
        row = int(self._rows[index])
        offset, size = (int(number) for number in self._places[row])
        shard = int(self._shard_of[row])
        file = self._content(shard)
        # With its header, by which an index that is wrong all the same is noticed.
        content = file.read(offset - BLOCK, BLOCK + size)
        check_unchanged(self._paths[shard], self._stamps[shard], file.descriptor)
        try:
            intact = tarfile.TarInfo.frombuf(content[:BLOCK], "utf-8", "surrogateescape").size == size
        except tarfile.TarError:
            intact = False
        if not intact or len(content) != BLOCK + size:
            raise ValueError(f"{self.name(index)} is not where it was: the shard has changed since it was indexed.")
        return content[BLOCK:]

    def _where(self, row: int) -> str:
        return printable(f"{self._paths[self._shard_of[row]]}:{self._members[row]}")

    def _open_anew(self) -> None:
        # A file that is put out of the cache is closed when no thread reads it any more.
        self._content = lru_cache(MOST_OPEN)(self._opened)

    def _opened(self, shard: int) -> TarContent:
        check_unchanged(self._paths[shard], self._stamps[shard])
        return TarContent(Path(self._paths[shard]), None)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_content"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)  # without open files: a worker process has no descriptors of its parent's
        self._open_anew()


def _names_in(indices: list[ShardIndex]) -> tuple[str, ...] | None:
    """The names that the labels of shards have in them; None where they have none."""
    if not any(index.classes.any() for index in indices):
        return None
    pairs = {pair for index in indices for pair in zip(index.labels.tolist(), PackedNames(index.classes))}
    if all(label == -1 for label, _ in pairs):
        return tuple(label_order(name for _, name in pairs))
    names: dict[int, str] = {}
    for label, name in sorted(pairs):
        if label == -1:
            raise ValueError(f"labels must be numbers in all shards, or names in all; of class {name!r} there is none.")
        if name and names.setdefault(label, name) != name:
            raise ValueError(f"label {label} must have one name; the shards call it {names[label]!r} and {name!r}.")
    count = max(label for label, _ in pairs) + 1
    return checked_names([names.get(label, str(label)) for label in range(count)], "the shards")


def _names_or_none(names: list[str] | None, shards: Shards) -> tuple[str, ...] | None:
    return None if names is None else checked_names(names, f"{printable(shards.folder)}/classes.txt")


def _classes(
    names: tuple[str, ...] | None, of_classes: list[ShardIndex], own: list[ShardIndex], where: Any
) -> tuple[tuple[str, ...], np.ndarray]:
    """The names of the classes, and the label of each of the split's images."""
    if names is None:
        names = tuple(map(str, range(1 + max(int(index.labels.max()) for index in of_classes))))
    labels = np.concatenate([index.labels for index in own])
    unnumbered = np.flatnonzero(labels == -1)
    if len(unnumbered):
        places = {name: label for label, name in enumerate(names)}
        called = list(PackedNames(np.concatenate([index.classes for index in own])))
        for row in unnumbered.tolist():
            if called[row] not in places:
                raise ValueError(f"{where(row)} must be of one of {len(names)} classes; it is {called[row]!r}.")
            labels[row] = places[called[row]]
    if len(strange := np.flatnonzero(labels >= len(names))):
        row = int(strange[0])
        raise ValueError(f"{where(row)} must have a label in [0, {len(names) - 1}]; received {labels[row]}.")
    return names, labels
