"""The index of a WebDataset shard: where its images lie and their labels, read once and kept."""

import json
import os
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_robust.data.sources import kept_index
from keras_robust.data.sources.packed_names import PackedNames
from keras_robust.data.sources.shards import MOST_CLASSES, sample_key, stamp_of
from keras_robust.data.sources.tar import plain_members
from keras_robust.files import DAMAGE, pread, printable
from keras_robust.machine import available_cores
from keras_robust.progress import ProgressLine

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "ppm", "pgm", "tif", "tiff")
LABEL_ENDINGS = ("cls", "json")
MAX_LABEL_BYTES = 2**20
INDEX = "shards"  # what the kept index of a folder of shards is called
BLOCK = 512  # bytes of the header before a file in an archive
LABELS_READ_AGAIN = 8  # of each shard, when a kept index of it is used
MOST_THREADS = 8  # that index shards, mostly waiting for disks


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


def shard_indices(paths: Iterable[str]) -> dict[str, ShardIndex]:
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
