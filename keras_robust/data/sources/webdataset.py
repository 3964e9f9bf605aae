"""WebDataset shards: tar archives of images with their labels beside them, read at random where they lie."""

import json
import os
import sys
import tarfile
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from keras_robust.data.class_names import label_order
from keras_robust.data.sources import kept_index
from keras_robust.data.sources.base import EncodedSource
from keras_robust.data.sources.packed_names import PackedNames
from keras_robust.data.sources.shards import (
    MOST_CLASSES,
    Shards,
    check_unchanged,
    checked_names,
    names_beside,
    sample_key,
    short_names,
    split_of,
    stamp_of,
)
from keras_robust.data.sources.tar import TarContent, plain_members
from keras_robust.files import DAMAGE, pread, printable
from keras_robust.machine import available_cores
from keras_robust.progress import ProgressLine

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "ppm", "pgm", "tif", "tiff")
LABEL_ENDINGS = ("cls", "json")
MAX_LABEL_BYTES = 2**20
INDEX = "shards"  # what the kept index of a folder of shards is called
BLOCK = 512  # bytes of the header before a file in an archive
LABELS_READ_AGAIN = 8  # of each shard, when a kept index of it is used
MOST_OPEN = 128  # files of a process; many systems allow 1,024
MOST_THREADS = 8  # that index shards, mostly waiting for disks


class WebDataset(EncodedSource):
    """Images in shards as WebDataset writes them: `KEY.jpg` (or another image) beside `KEY.cls` or `KEY.json`.

    `.cls` holds the label, a whole number; `.json` an object with the label under "label" or "cls", a number or the
    class's name, and, if you like, the class's name under "class_name". Other files of a sample are passed over.

    Shards are indexed once: where each image lies in them, and its label. The index is kept beside them (or in the
    user's cache folder) and counts while sizes and times of the shards are the same, and the labels that are read
    again, a few of each shard. Images are then read at random, so
    that a step's batch is the same whatever the number of workers, by any number of threads and processes.

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
        indices = _indices([*chosen.paths, *chosen.others])
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


@dataclass(frozen=True)
class ShardIndex:
    """Where the images of a shard lie, and their labels.

    Attributes:
        size, changed: bytes of the file, and when it was changed last, in nanoseconds.
        places: offset and size of each image's file, int64 (n, 2).
        labels: int64 (n,), -1 for those of which only the class's name is known.
        label_files: offset, size and CRC-32 of the file that each label is from, int64 (n, 3).
        names: of the images' files, as in `PackedNames`.
        classes: name of each image's class, "" where it is not known; as in `PackedNames`.
    """

    size: int
    changed: int
    places: np.ndarray
    labels: np.ndarray
    label_files: np.ndarray
    names: np.ndarray
    classes: np.ndarray

    def is_of(self, path: str) -> bool:
        """Whether it is of one piece, and of that file as it is now."""
        count = len(self.labels)
        texts = all(np.count_nonzero(text == 0) == count for text in (self.names, self.classes))
        start, length = self.places.reshape(-1, 2).T
        within = bool(np.all((start >= BLOCK) & (length >= 0) & (start + length <= self.size)))
        whole = len(start) == len(self.label_files) == count > 0 and texts and within
        return whole and os.path.isfile(path) and (self.size, self.changed) == stamp_of(path)

    def labels_hold(self, path: str) -> bool:
        """Whether labels drawn at random still stand in the file, for a program may set back the time of another."""
        rows = np.random.default_rng().integers(len(self.labels), size=LABELS_READ_AGAIN)
        try:
            with open(path, "rb") as file:
                return all(
                    0 <= size <= MAX_LABEL_BYTES and zlib.crc32(pread(file.fileno(), size, offset)) == check
                    for offset, size, check in self.label_files[rows].reshape(-1, 3).tolist()
                )
        except OSError:  # which indexing it anew will tell
            return False


def _indices(paths: Iterable[str]) -> dict[str, ShardIndex]:
    """The index of each shard: the one that was kept, or else made, and kept, now."""
    by_folder: dict[str, list[str]] = {}
    for path in paths:
        by_folder.setdefault(os.path.dirname(path), []).append(path)
    found: dict[str, ShardIndex] = {}
    for folder, wanted in by_folder.items():
        known = _kept(folder)
        missing = []
        for path in wanted:
            index = known.get(os.path.basename(path))
            if index is not None and index.labels_hold(path):
                found[path] = index
            else:
                missing.append(path)
        if missing:
            begun = time.time()
            made = dict(zip(missing, _made(missing)))
            found |= made
            known |= {os.path.basename(path): index for path, index in made.items()}
            _keep(folder, known, begun)
    return found


def _made(paths: list[str]) -> Iterator[ShardIndex]:
    line = ProgressLine(sys.stderr)
    try:
        with ThreadPoolExecutor(min(available_cores(), MOST_THREADS)) as pool:
            for count, index in enumerate(pool.map(index_shard, paths), 1):
                if line.due():
                    line.show(f"indexing shards, once: {count} of {len(paths)}")
                yield index
    finally:
        line.close()


def _kept(folder: str) -> dict[str, ShardIndex]:
    """Indices of those shards that are as they were, by the shards' names."""
    found: dict[str, ShardIndex] = {}
    for arrays in kept_index.kept(folder, INDEX):
        try:
            stats = arrays["stats"].reshape(-1, 5)
            ends = np.cumsum(stats[:, 2:], axis=0)
            starts = ends - stats[:, 2:]
            for name, (size, changed, *_), first, last in zip(PackedNames(arrays["shards"]), stats, starts, ends):
                images, names, classes = (slice(*bounds) for bounds in zip(first, last))
                of_images = arrays["places"][images], arrays["labels"][images], arrays["label_files"][images]
                of_texts = arrays["names"][names], arrays["classes"][classes]
                index = ShardIndex(int(size), int(changed), *of_images, *of_texts)
                if name not in found and index.is_of(os.path.join(folder, name)):
                    found[name] = index
        except (KeyError, ValueError, IndexError, TypeError):  # of another form: made anew
            continue
    return found


def _keep(folder: str, indices: dict[str, ShardIndex], begun: float) -> None:
    """Keeps the indices of those shards that were at rest when their reading began."""
    kept = {name: index for name, index in indices.items() if kept_index.settled(index.changed, begun)}
    if not kept:
        return
    stats = [
        (index.size, index.changed, len(index.labels), len(index.names), len(index.classes)) for index in kept.values()
    ]
    arrays = {
        name: np.concatenate([getattr(index, name) for index in kept.values()])
        for name in ("places", "labels", "label_files", "names", "classes")
    }
    named = PackedNames.of(kept).content
    kept_index.keep(folder, INDEX, {"shards": named, "stats": np.array(stats, np.int64), **arrays})


def index_shard(path: str) -> ShardIndex:
    """Reads the headers and the labels of a shard.

    Raises:
        ValueError: as `WebDataset`.
    """
    shown = printable(path)
    samples: dict[str, dict[str, tuple[str, int, int]]] = {}
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            for member, offset, size in plain_members(Path(path), file):
                _add(samples, shown, member, offset, size)
            rows = [_row(shown, key, files, file.fileno()) for key, files in samples.items()]
            after = os.fstat(file.fileno())
    except ValueError:
        raise
    except DAMAGE as error:
        raise ValueError(f"{shown} cannot be read as a tar archive: {error or type(error).__name__}") from error
    if (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
        raise ValueError(f"{shown} was written to while it was read.")
    if not rows:
        raise ValueError(f"{shown} must hold images, each with its label beside it in .cls or .json; it holds none.")
    names, offsets, sizes, labels, label_files, classes = zip(*rows)
    return ShardIndex(
        status.st_size,
        status.st_mtime_ns,
        np.stack([offsets, sizes], axis=1).astype(np.int64),
        np.array(labels, np.int64),
        np.array(label_files, np.int64),
        PackedNames.of(names).content,
        PackedNames.of(classes).content,
    )


def _add(samples: dict[str, dict[str, tuple[str, int, int]]], shown: str, member: str, offset: int, size: int) -> None:
    """Puts a file of a shard to its sample: the image under "image", labels under what their names end in."""
    file = member.rpartition("/")[2]
    if not file or file.startswith(".") or "\0" in member:
        return
    key, ending = sample_key(member)
    kind = ending.rpartition(".")[2]
    kind = "image" if kind in IMAGE_ENDINGS else kind if ending in LABEL_ENDINGS else ""
    if not kind:
        return
    files = samples.setdefault(key, {})
    if kind in files:
        what = "one image" if kind == "image" else f"one label in .{kind}"
        raise ValueError(
            f"{shown}: sample {printable(key)!r} must have {what}; it has {printable(files[kind][0])!r} and "
            f"{printable(member)!r}."
        )
    files[kind] = member, offset, size


def _row(
    shown: str, key: str, files: dict[str, tuple[str, int, int]], descriptor: int
) -> tuple[str, int, int, int, tuple[int, int, int], str]:
    """Name, offset, size, label, the label's file as in `ShardIndex` and class name of a sample's image."""
    where = f"{shown}: sample {printable(key)!r}"
    if "image" not in files:
        raise ValueError(f"{where} has no image; accepted are .{', .'.join(IMAGE_ENDINGS)}.")
    numbers: set[int] = set()
    names: set[str] = set()
    for kind in LABEL_ENDINGS:
        if kind in files:
            member, offset, size = files[kind]
            if size > MAX_LABEL_BYTES:
                raise ValueError(
                    f"{shown}:{printable(member)} must have at most {MAX_LABEL_BYTES:,} bytes; it has {size:,}."
                )
            content = pread(descriptor, size, offset)
            label_file = offset, size, zlib.crc32(content)
            for value in (_in_cls if kind == "cls" else _in_json)(content, f"{shown}:{printable(member)}"):
                if isinstance(value, int):
                    numbers.add(value)
                else:
                    names.add(value)
    if not numbers and not names:
        raise ValueError(f"{where} has no label: it needs a .cls, or a .json with a 'label' or 'cls'.")
    if len(numbers) > 1 or len(names) > 1:
        found = sorted(numbers) if len(numbers) > 1 else sorted(names)
        raise ValueError(f"{where} must have one label; it has {' and '.join(map(repr, found))}.")
    label = numbers.pop() if numbers else -1
    name = names.pop() if names else ""
    return (*files["image"], label, label_file, name)


def _in_cls(content: bytes, shown: str) -> list[int | str]:
    text = content.decode("ascii", "replace").strip()
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{shown} must hold a label, a whole number >= 0; received {text[:50]!r}.")
    return [_number(int(text), shown)]


def _in_json(content: bytes, shown: str) -> list[int | str]:
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown} must be JSON; {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{shown} must be an object with a 'label' or 'cls'; received {str(record)[:50]!r}.")
    found: list[int | str] = []
    for name in ("label", "cls", "class_name"):
        value = record.get(name)
        if value is None:
            continue
        if isinstance(value, str) and value and "\0" not in value:
            found.append(value)
        elif isinstance(value, int) and not isinstance(value, bool) and name != "class_name":
            found.append(_number(value, shown))
        else:
            accepted = "a name" if name == "class_name" else "a whole number >= 0, or a name"
            raise ValueError(f"{shown}: {name!r} must be {accepted}; received {str(value)[:50]!r}.")
    return found


def _number(value: int, shown: str) -> int:
    if not 0 <= value < MOST_CLASSES:
        raise ValueError(f"{shown} must hold a label, a whole number in [0, {MOST_CLASSES - 1}]; received {value}.")
    return value


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
