"""Classes and splits of a list of file names: alike for a folder and for an archive of one."""

import random
from collections.abc import Iterable, Iterator
from typing import Any

from keras_robust.checks import check_choice

SPLITS = ("train", "val", "test")
VAL_SHARE = 0.2


def files_by_class(where: str, names: Iterable[str], split: str | None, seed: int) -> dict[str, list[str]]:
    """Sort the files of a data set into classes and take one split.

    Names are either `train/<class>/*` beside `val/<class>/*` or `test/<class>/*`, or `<class>/*` alone; then a fifth of
    each class (at least one image) becomes the validation split: the same files on every machine, because names
    alone decide. Files may lie in folders below their class's; names that begin with a dot are passed over.

    Args:
        where: of the data set, for messages.
        names: of its files, with `/`, relative to `where`; a folder's name ends in `/`.
        split: "train", "val" or "test"; None takes all images of `<class>/*`.
        seed: of the split, where there are no own ones.

    Returns:
        From each class to its files, both sorted by name.
    """
    check_choice("split", split, (*SPLITS, None))
    names = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    parts = sorted({name.split("/", 1)[0] for name in names if "/" in name})
    own = [part for part in SPLITS if part in parts]
    # A folder `train` beside others may well be a class, of railway trains.
    has_own = len(parts) > 0 and (len(own) == len(parts) or ("train" in own and len(own) > 1))
    if split is None or not has_own:
        files = _classes(where, names)
        if split is None:
            return files
        if split == "test":
            raise ValueError(f"split must be one of 'train', 'val', as {where} has no test folder; received 'test'.")
        return {name: _drawn(f"{where}/{name}", name, members, split, seed) for name, members in files.items()}
    if split not in own:
        raise ValueError(f"split must be one that {where} has, {', '.join(map(repr, own))}; received {split!r}.")
    classes = {}
    for part in own:
        inner = (name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/"))
        classes[part] = _classes(f"{where}/{part}", inner, prefix=f"{part}/")
    for part in own:
        if different := classes[split].keys() ^ classes[part].keys():
            raise ValueError(f"{split} and {part} must hold the same classes; only one has {sorted(different)}.")
    return classes[split]


def drawn_split(name: str, count: int, split: str, seed: int) -> list[int]:
    """Which of the `count` images of the class `name` are in the split, in order."""
    order = list(range(count))
    # Python promises that Random keeps its sequence across releases.
    random.Random(f"image_folder/{seed}/{name}").shuffle(order)
    n_val = max(1, round(VAL_SHARE * count))
    return sorted(order[:n_val] if split == "val" else order[n_val:])


def _drawn(where: str, name: str, members: list[str], split: str, seed: int) -> list[str]:
    if len(members) < 2:
        raise ValueError(f"{where} must hold at least 2 images, to draw a validation split; it holds one.")
    return [members[i] for i in drawn_split(name, len(members), split, seed)]


def _classes(where: str, names: Iterator[Any] | list[Any], prefix: str = "") -> dict[str, list[str]]:
    files: dict[str, list[str]] = {}
    for name in names:
        folder, slash, rest = name.partition("/")
        if not slash or not folder:
            continue
        members = files.setdefault(folder, [])
        if rest and not rest.endswith("/"):
            members.append(prefix + name)
    if not files:
        raise ValueError(f"{where} must hold one folder of images per class; it holds no folders.")
    for folder, members in files.items():
        if not members:
            raise ValueError(f"{where}/{folder} must hold images; it holds none.")
    return {folder: sorted(files[folder]) for folder in sorted(files)}
