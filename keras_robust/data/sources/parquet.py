"""Parquet files of images and labels, in the layout of the Hugging Face Hub's data sets."""

import itertools
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_robust.data.sources.base import EncodedSource
from keras_robust.data.sources.shards import (
    CLASSES,
    MOST_CLASSES,
    Shards,
    check_unchanged,
    checked_names,
    names_beside,
    short_names,
    split_of,
    stamp_of,
)
from keras_robust.files import FREE_BYTES, MAX_RATIO, printable

# Of images in a process, beyond the row group read last; and of a row group that is accepted.
CACHED_BYTES = 128 * 2**20
MAX_GROUP_BYTES = 2**30
# The columns of images and of labels, and the names of the classes, None where the schema has none.
Layout = tuple[str, str, tuple[str, ...] | None]


class Parquet(EncodedSource):
    """Images in Parquet files, as `train-00000-of-00014.parquet`: a column of image files and one of labels.

    The image is a struct of `bytes` and `path`, or binary; the label an integer, whose names are those given, else
    those of the `ClassLabel` in the schema, where the Hub's library has written them, else those in a `classes.txt`
    beside the files, else the numbers. The columns are those that the schema calls Image and ClassLabel, if it has one
    of each, else `image` and `label`.

    A Parquet file is read by row groups, of which each process keeps some: an image read at random costs its whole row
    group, 100 images in the Hub's files. What is trained on for long is quicker in `WebDataset` shards.

    Args:
        shards: the files.
        split: "train", "val" or "test", as the words in the files' names tell it; otherwise as in `ImageFolder`.
        seed: of a validation part that is drawn.
        class_names: in the order of the labels.

    Raises:
        ValueError: a file that is no Parquet, has no images or labels in it, or other columns or classes than the
            first; a row without an image or a label; a label that is no class; a row group of more than 1 GiB; more
            rows than a file of its size can hold; as for splits in `ImageFolder`. The message names the file.
        ImportError: pyarrow is not installed.
    """

    def __init__(
        self, shards: Shards, split: str | None, seed: int = 0, class_names: Sequence[str] | None = None
    ) -> None:
        pyarrow()
        chosen = split_of(shards, split)
        own = [_Table(path) for path in chosen.paths]
        others = [_Table(path) for path in chosen.others]
        for table in [*own, *others]:
            if table.layout != own[0].layout:
                raise ValueError(
                    f"{printable(table.path)} must have the columns and classes of {printable(own[0].path)}; "
                    f"{_difference(table.layout, own[0].layout)}."
                )
        names = class_names or own[0].layout[2] or names_beside(shards)
        if names is None:
            count = 1 + max(int(table.labels.max()) for table in others or own)
            names = [str(label) for label in range(min(count, MOST_CLASSES))]
        self.class_names = checked_names(names, "class_names" if names is class_names else f"the {CLASSES} or schema")
        self._paths, self._column = [table.path for table in own], own[0].layout[0]
        self._stamps, self._short_names = [table.stamp for table in own], short_names(chosen.paths)
        # Of each row group: its file, its number there, and the first of its rows among all.
        groups = [(file, group, rows) for file, table in enumerate(own) for group, rows in enumerate(table.group_rows)]
        self._groups = np.array([each[:2] for each in groups], np.int64)
        self._starts = np.cumsum([0, *(rows for _, _, rows in groups)])
        labels = np.concatenate([table.labels for table in own])
        strange = np.flatnonzero((labels < 0) | (labels >= len(self.class_names)))
        if len(strange):
            row = int(strange[0])
            where, highest = self._where(row, self._paths), len(self.class_names) - 1
            raise ValueError(f"{where} must have a label in [0, {highest}]; received {labels[row]}.")
        places = chosen.places(shards, labels, self.class_names, seed)
        self._rows = np.arange(len(labels)) if places is None else places
        self.labels, self.note = labels[self._rows], chosen.note(seed)
        self._open_anew()

    def name(self, index: int) -> str:
        return self._where(int(self._rows[index]), self._paths)

    def identifier(self, index: int) -> str:
        return self._where(int(self._rows[index]), self._short_names)

    def encoded(self, index: int) -> bytes:
        row = int(self._rows[index])
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        images = self._images(group)
        content = images[row - int(self._starts[group])].as_py()
        if content is None:
            raise ValueError(f"{self.name(index)} has no image in it.")
        return content

    def _where(self, row: int, files: list[str]) -> str:
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        file = int(self._groups[group][0])
        first = int(self._starts[np.flatnonzero(self._groups[:, 0] == file)[0]])
        return f"{printable(files[file])}: row {row - first}"

    def _images(self, group: int) -> Any:
        """The images of a row group, from the cache or from its file, one thread after the other."""
        with self._lock:
            if group in self._cache:
                self._cache.move_to_end(group)
                return self._cache[group]
            file, number = self._groups[group].tolist()
            check_unchanged(self._paths[file], self._stamps[file])
            images = _read_images(self._paths[file], number, self._column)
            self._cache[group] = images
            self._cached += images.nbytes
            while self._cached > CACHED_BYTES and len(self._cache) > 1:
                self._cached -= self._cache.popitem(last=False)[1].nbytes
            return images

    def _open_anew(self) -> None:
        self._lock, self._cached = threading.Lock(), 0
        self._cache: OrderedDict[int, Any] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_cache", "_cached")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open_anew()


class _Table:
    """What a Parquet file says of itself, and its labels.

    Attributes:
        layout: see `Layout`.
        stamp: see `stamp_of`.
        labels: int64, one for each row.
        group_rows: rows of each row group.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        shown, self.stamp = printable(path), stamp_of(path)
        with _opened(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
            self.layout = _layout(shown, schema)
            image, label, _ = self.layout
            self.group_rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            rows, size = sum(self.group_rows), self.stamp[0]
            if 8 * rows > FREE_BYTES + MAX_RATIO * size:  # of labels, before any is read
                raise ValueError(f"{shown} must have an image in each row; it claims {rows:,} rows in {size:,} bytes.")
            _check_group_sizes(shown, metadata, image)
            column = _guarded(shown, lambda: file.read(columns=[label], use_threads=False).column(label))
        if not len(column):
            raise ValueError(f"{shown} must hold images; it holds no rows.")
        if column.null_count:
            raise ValueError(f"{shown} must have a label in each row; {column.null_count} have none.")
        self.labels = column.to_numpy().astype(np.int64)


def _layout(shown: str, schema: Any) -> Layout:
    """The columns of images and of labels, and the names of the classes."""
    arrow = pyarrow()
    features = _features(shown, schema)
    image, label = (
        _column(shown, schema, features, kind, usual) for kind, usual in (("Image", "image"), ("ClassLabel", "label"))
    )
    form = schema.field(image).type
    binary = (arrow.types.is_binary, arrow.types.is_large_binary)
    inner = form.field("bytes").type if arrow.types.is_struct(form) and form.get_field_index("bytes") >= 0 else form
    if not any(is_binary(inner) for is_binary in binary):
        raise ValueError(f"{shown}: column {image!r} must be binary, or a struct with 'bytes'; it is {form}.")
    if not arrow.types.is_integer(schema.field(label).type):
        raise ValueError(f"{shown}: column {label!r} must hold whole numbers; it is {schema.field(label).type}.")
    names = features.get(label, {}).get("names")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"{shown}: the classes of {label!r} must be a list of names; received {str(names)[:50]}.")
    return image, label, None if names is None else tuple(names)


def _features(shown: str, schema: Any) -> dict[str, dict[str, Any]]:
    """What the Hub's library has noted of each column; nothing where it has not."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    try:
        features = json.loads(text)["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{shown}: its note of the Hugging Face Hub is damaged: {error!r}.") from error


def _column(shown: str, schema: Any, features: dict[str, dict[str, Any]], kind: str, usual: str) -> str:
    """The column of this kind: the only one that is noted as such, or the one with the usual name."""
    noted = [name for name, feature in features.items() if feature.get("_type") == kind and name in schema.names]
    if usual in noted or len(noted) != 1:
        if usual in schema.names:
            return usual
        several = f"; {', '.join(map(repr, noted))} may all be meant" if noted else ""
        raise ValueError(
            f"{shown} must have a column {usual!r}, or one that is noted as {kind}{several}; its columns are "
            f"{', '.join(map(repr, schema.names))}."
        )
    return noted[0]


def _check_group_sizes(shown: str, metadata: Any, image: str) -> None:
    for number in range(metadata.num_row_groups):
        _check_group_size(shown, number, _stored_bytes(metadata.row_group(number), image))


def _check_group_size(shown: str, number: int, size: int) -> None:
    if size > MAX_GROUP_BYTES:
        raise ValueError(
            f"{shown} must have row groups of at most {MAX_GROUP_BYTES:,} bytes, each of which is read as a whole; "
            f"row group {number} has {size:,} or more. Write it anew in groups of about 100 rows."
        )


def _stored_bytes(group: Any, column: str) -> int:
    """Bytes of a column in a row group, unpacked; of values that are repeated, a dictionary may hold one alone."""
    parts = (group.column(place) for place in range(group.num_columns))
    return sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] == column)


def _read_images(path: str, group: int, column: str) -> Any:
    """The image files in a row group, as an Arrow array of binaries."""
    arrow, shown, parts, size = pyarrow(), printable(path), [], 0
    with _opened(path) as file:
        # So many rows at once that they are within the bound even where each is all that is stored.
        rows = max(MAX_GROUP_BYTES // max(_stored_bytes(file.metadata.row_group(group), column), 1), 1)
        batches = file.iter_batches(rows, row_groups=[group], columns=[column], use_threads=False)
        while (batch := _guarded(shown, lambda: next(batches, None))) is not None:
            parts.append(batch)
            size += batch.nbytes
            _check_group_size(shown, group, size)
    images = _guarded(shown, lambda: arrow.Table.from_batches(parts).column(0).combine_chunks())
    if isinstance(images, arrow.ChunkedArray):  # of releases that keep one chunk in a list
        images = images.chunk(0)
    return images.field("bytes") if arrow.types.is_struct(images.type) else images


def _opened(path: str) -> Any:
    from pyarrow import parquet

    return _guarded(printable(path), lambda: parquet.ParquetFile(path))


def _guarded(shown: str, read: Any) -> Any:
    """What `read` returns; its errors with the file's name."""
    try:
        return read()
    except (OSError, ValueError, MemoryError, NotImplementedError) as error:  # Arrow's errors are these
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{shown} cannot be read as a Parquet file: {reason}") from error


def _difference(one: Layout, other: Layout) -> str:
    """What the first of two layouts has and the second has not."""
    if one[:2] != other[:2]:
        return f"it has {one[0]!r} and {one[1]!r}, that one {other[0]!r} and {other[1]!r}"
    pairs = itertools.zip_longest(one[2] or (), other[2] or ())
    label, names = next((label, names) for label, names in enumerate(pairs) if names[0] != names[1])
    return f"label {label} is {names[0]!r} here and {names[1]!r} there"


def pyarrow() -> Any:
    try:
        import pyarrow as arrow
    except ImportError as error:
        raise ImportError("Parquet files are read by pyarrow: pip install 'keras-robust[parquet]'") from error
    return arrow
