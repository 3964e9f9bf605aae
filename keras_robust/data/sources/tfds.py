"""Data sets of TensorFlow Datasets, read at random from the files that it has prepared."""

import os
import struct
import weakref
from collections.abc import Iterator
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np

from keras_robust.data.sources.base import EncodedSource
from keras_robust.data.sources.splits import HELD_OUT, WHOLE_TRAIN, drawn_places
from keras_robust.files import READ_ONLY, pread
from keras_robust.types import Tensor

# What other data sets call the validation split.
ALIASES = {"val": ("val", "validation"), HELD_OUT: ("val", "validation", "test", "train"), WHOLE_TRAIN: ("train",)}


class DataSet(EncodedSource):
    """A classification data set of TensorFlow Datasets (TFDS): `imagenet2012`, `imagenette`, `cifar10`, ...

    The prepared files are indexed and read an image at a time, whichever of TFDS' formats they are in (TFRecord or
    ArrayRecord), so that training can be resumed and sharded as from a folder of files. TFDS' test split never stands
    in for a missing validation split.

    Args:
        name: as TFDS knows it, with a configuration and a version where needed: "imagenette/full-size-v2".
        split: "train", "val" or "test", or one of the data set's own names.
        data_dir: where the prepared files are; TFDS' default if not given.
        download: download and prepare the data set if that has not been done.

    Attributes:
        labels: read from all of the files when first asked for, which takes a while for a large data set; training does
            not need them in advance.

    Raises:
        ValueError: an unknown name or split, a data set that is not there (and `download` is False), or one that is
            not of images with labels.
        ImportError: TFDS is not installed.
    """

    def __init__(
        self, name: str, split: str | None, data_dir: str | PathLike | None = None, download: bool = False
    ) -> None:
        try:
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise ImportError(
                "tfds: data sets are read by TensorFlow Datasets: pip install 'keras-robust[tensorflow]'"
            ) from error
        try:
            builder = tfds.builder(name, data_dir=data_dir)
        except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
            raise ValueError(f"path_or_name: TFDS has no data set {name!r}: {str(error).splitlines()[0]}") from error
        if download:
            builder.download_and_prepare()
        elif not builder.is_prepared():
            raise ValueError(
                f"{name!r} has not been prepared in {builder.data_path}. Pass download=True (--download in tools) to "
                f"download {builder.info.download_size} and prepare it, or data_dir= where it is."
            )
        info = builder.info
        self._image, self._label, self.class_names = _features(name, info.features, info.supervised_keys)
        held_out = split in ("train", "val") and "train" in info.splits and not {"val", "validation"} & {*info.splits}
        drawn = held_out and "test" in info.splits
        self._split = "train" if drawn else _split(name, split, info.splits)
        self._name, self._count = name, info.splits[self._split].num_examples
        self._records = _records(info.splits[self._split].filepaths, str(getattr(info.file_format, "value", "")))
        if len(self._records) != self._count:
            raise ValueError(
                f"{name!r} must hold {self._count:,} examples in {self._split}; its files hold {len(self._records):,}: "
                "they are incomplete, prepare it anew."
            )
        self._chosen = self._drawn(str(split)) if drawn else range(self._count)
        self.note = "no validation split: a fifth of each class of train is held out as one" if drawn else ""

    def __len__(self) -> int:
        return len(self._chosen)

    def _drawn(self, split: str) -> np.ndarray:
        """The examples of a training or validation part that TFDS does not have, drawn within each class."""
        self._chosen = range(self._count)
        labels = np.array([self.label(index) for index in range(self._count)])
        return drawn_places(f"tfds:{self._name}/train", labels, self.class_names, split, 0)

    @cached_property
    def labels(self) -> np.ndarray:  # type: ignore[override]
        return np.array([self.label(index) for index in range(len(self))], np.int64)

    def name(self, index: int) -> str:
        return f"tfds:{self._name}/{self._split}: example {self._chosen[index]}"

    def identifier(self, index: int) -> str:
        return f"example {self._chosen[index]}"

    def encoded(self, index: int) -> bytes:
        return self._example(index)[self._image]

    def label(self, index: int) -> int:
        return self._example(index)[self._label]

    def encoded_with_label(self, index: Any) -> Any:
        example = self._example(index)
        return example[self._image], example[self._label]

    def _example(self, index: int) -> Any:
        wanted = {self._image.encode(): self._image, self._label.encode(): self._label}
        try:
            return first_values(self._records[int(self._chosen[int(index)])], wanted)
        except ValueError as error:
            raise ValueError(f"{self.name(index)} cannot be read as an image: {error}") from error


def first_values(record: bytes, wanted: dict[bytes, str]) -> dict[str, Any]:
    """The first value of some features of a `tf.train.Example`, as bytes or int.

    Read here, so that worker processes need no TensorFlow. The format is Protocol Buffers' of TensorFlow's
    `example.proto` and `feature.proto`: Example{1: Features{1: entries {1: name, 2: Feature}}}, where Feature holds
    one of {1: list of bytes, 2: of floats, 3: of int64} and a list has its values in field 1.

    Args:
        wanted: from the encoded names of features to what to call them.

    Raises:
        ValueError: a record that is damaged, or without one of them.
    """
    found: dict[str, Any] = {}
    try:
        for _, features in _fields(memoryview(record)):
            for _, entry in _fields(features):
                parts = dict(_fields(entry))
                name = bytes(parts[1])
                if name in wanted:
                    ((kind, values),) = _fields(parts[2])
                    value = next(value for _, value in _fields(values))
                    if kind == 3:
                        number = value if isinstance(value, int) else _varint(value, 0)[0]
                        found[wanted[name]] = number - 2**64 if number >= 2**63 else number
                    else:
                        found[wanted[name]] = bytes(value)
    except (KeyError, IndexError, StopIteration, TypeError, ValueError) as error:
        raise ValueError(f"a record is damaged, or no example of images with labels: {error!r}") from error
    if missing := wanted.values() - found.keys():
        raise ValueError(f"a record has no {', '.join(sorted(missing))}")
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a message's fields: ints, or the bytes of what is longer."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        if tag & 7 == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
            continue
        if tag & 7 not in (1, 2, 5):
            raise ValueError(f"field of kind {tag & 7}")
        size, position = _varint(message, position) if tag & 7 == 2 else (8 if tag & 7 == 1 else 4, position)
        if position + size > len(message):
            raise ValueError("it ends within a field")
        yield tag >> 3, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and the position after it."""
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _close(descriptors: list[int]) -> None:
    for each in descriptors:
        os.close(each)


class _TFRecords:
    """Random access to TFRecord files: each record is its length in 8 bytes, 4 of checksum, the data, 4 of checksum."""

    def __init__(self, paths: list[str]) -> None:
        places = []
        self._paths = paths
        self._open()
        for number, (path, descriptor) in enumerate(zip(paths, self._descriptors)):
            offset, end = 0, os.fstat(descriptor).st_size
            while offset < end:
                header = pread(descriptor, 8, offset)
                (size,) = struct.unpack("<Q", header) if len(header) == 8 else (end,)
                if offset + 16 + size > end:
                    raise ValueError(f"{path} ends within a record: it is truncated, or no TFRecord file.")
                places.append((number, offset + 12, size))
                offset += 16 + size
        self._places = np.array(places, np.int64).reshape(-1, 3)

    def _open(self) -> None:
        self._descriptors = [os.open(path, READ_ONLY) for path in self._paths]
        weakref.finalize(self, _close, self._descriptors)

    def __getstate__(self) -> dict[str, Any]:
        return {"_paths": self._paths, "_places": self._places}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Opens the files anew: a worker process has no descriptors of its parent's."""
        vars(self).update(state)
        self._open()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> bytes:
        number, offset, size = (int(value) for value in self._places[index])
        return pread(self._descriptors[number], size, offset)


def _records(paths: list[Any], file_format: str) -> Any:
    paths = [os.fspath(path) for path in paths]
    if file_format == "tfrecord":
        return _TFRecords(paths)
    if file_format == "array_record":
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        return ArrayRecordDataSource(paths)
    raise ValueError(f"files must be in the format tfrecord or array_record; received {file_format!r}.")


def _split(name: str, split: str | None, splits: Any) -> str:
    for candidate in ALIASES.get(split or "", (split,)):
        if candidate is not None and candidate in splits:
            return candidate
    raise ValueError(f"split must be one that {name!r} has, {', '.join(map(repr, splits))}; received {split!r}.")


def _features(
    name: str, features: Tensor, supervised_keys: tuple[str, str]
) -> tuple[str, str, tuple[str, str, str, str]]:
    """The names of image and label, and those of the classes."""
    if supervised_keys is not None and len(supervised_keys) == 2:
        image, label = supervised_keys
        names = getattr(features[label], "names", None) if isinstance(label, str) else None
        if isinstance(image, str) and type(features[image]).__name__ == "Image" and names:
            return image, label, tuple(names)
    raise ValueError(f"{name!r} must be a data set of images with one class each; its features are {features}.")
