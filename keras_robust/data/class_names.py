"""Names of classes: read from a file, and matched between a data set and a model."""

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

LISTED = 10  # names in a message


def ordered(names: Iterable[str]) -> list[str]:
    """Class names in the order of their labels: as numbers where all are whole numbers, else by name.

    Example:
        >>> ordered(["10", "9", "2"]), ordered(["10", "9", "cat"])
        (['2', '9', '10'], ['10', '9', 'cat'])
    """
    names = list(names)
    if all(is_number(name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def is_number(name: str) -> bool:
    """Whether a class is called by a whole number."""
    return name.isascii() and name.isdigit()


def read_class_names(source: Sequence[str] | str | PathLike) -> list[tuple[str, ...]]:
    """Names of a model's outputs, in their order, all the names of each.

    Args:
        source: a sequence of names, or the path of a text file with one class per line; columns that a tab separates
            are other names of the same class (for ImageNet: index, WordNet id and name). A first line that begins
            with "index" is a header.
    """
    if isinstance(source, (str, PathLike)):
        lines = [line.rstrip("\r").split("\t") for line in Path(source).read_text(encoding="utf-8").split("\n") if line]
        if lines and lines[0][0] == "index":
            lines = lines[1:]
        names = [tuple(line) for line in lines]
    else:
        names = [(str(name),) for name in source]
    if not names:
        raise ValueError(f"class_names must hold at least one name; {source!r} holds none.")
    return names


def match_classes(classes: Sequence[str], num_classes: int, aliases: list[tuple[str, ...]] | None) -> np.ndarray:
    """The model's output for each class of a dataset, int64 (classes,)."""
    if aliases is not None:
        if len(aliases) != num_classes:
            raise ValueError(f"class_names must be the model's {num_classes} outputs; received {len(aliases)} names.")
        places = {alias: output for output, names in enumerate(aliases) for alias in names}
        strangers = [name for name in classes if name not in places]
        if strangers:
            raise ValueError(
                f"the dataset's classes must be among class_names; not there are {len(strangers)} of {len(classes)}: "
                f"{', '.join(strangers[:LISTED])}."
            )
        return np.asarray([places[name] for name in classes], np.int64)
    if len(classes) == num_classes:
        return np.arange(num_classes)
    if all(name.isdigit() and int(name) < num_classes for name in classes):
        return np.asarray([int(name) for name in classes], np.int64)
    raise ValueError(
        f"the dataset has {len(classes)} classes ({', '.join(classes[:3])}, ...), the model {num_classes} outputs: "
        "which belongs to which is not known. Give class_names, the names of the model's outputs in their order."
    )
