"""Classes: the order of their names (10 after 2), names read from a file and matched between data and a model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np

from keras_robust.files import read_text

LISTED = 10  # names in a message


def label_order(names: Iterable[str]) -> list[str]:
    """Class names in the order of their labels: as numbers where all are whole numbers, else by name.

    Example:
        >>> label_order(["10", "9", "2"]), label_order(["10", "9", "cat"])
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
        lines = [line.rstrip("\r").split("\t") for line in read_text(source).split("\n") if line]
        if lines and lines[0][0] == "index":
            lines = lines[1:]
        names = [tuple(line) for line in lines]
    else:
        names = [(str(name),) for name in source]
    if not names:
        raise ValueError(f"class_names must hold at least one name; {source!r} holds none.")
    return names


@dataclass(frozen=True)
class Matching:
    """Which output of a model each class of a data set is.

    Attributes:
        outputs: the model's output for each class, int64 (classes,).
        by: "name", or "order" or "number" where the model's names are not known.
    """

    outputs: np.ndarray
    by: str


def match_classes(classes: Sequence[str], num_classes: int, aliases: list[tuple[str, ...]] | None) -> Matching:
    """Match the classes of a data set to a model's outputs.

    Args:
        classes: names, in the order of the data set's labels.
        num_classes: number of the model's outputs.
        aliases: all names of each output. Without them, as many classes as outputs are taken in order, and fewer
            classes that are called by whole numbers by these.

    Raises:
        ValueError: a class is not among the outputs' names, or which belongs to which is not known.
    """
    if aliases is not None:
        if len(aliases) != num_classes:
            raise ValueError(f"class_names must be the model's {num_classes} outputs; received {len(aliases)} names.")
        places = {alias: output for output, names in enumerate(aliases) for alias in names}
        strangers = [name for name in classes if name not in places]
        if strangers:
            known = ", ".join(names[-1] for names in aliases[:LISTED])
            raise ValueError(
                f"the dataset's classes must be among class_names, the names of the model's outputs ({known}"
                f"{', ...' if len(aliases) > LISTED else ''}); not there are {len(strangers)} of {len(classes)}: "
                f"{', '.join(strangers[:LISTED])}."
            )
        return Matching(np.asarray([places[name] for name in classes], np.int64), "name")
    if len(classes) == num_classes:
        return Matching(np.arange(num_classes), "order")
    if all(is_number(name) and int(name) < num_classes for name in classes):
        return Matching(np.asarray([int(name) for name in classes], np.int64), "number")
    raise ValueError(
        f"the dataset has {len(classes)} classes ({', '.join(classes[:3])}, ...), the model {num_classes} outputs: "
        "which belongs to which is not known. Give class_names, the names of the model's outputs in their order."
    )
