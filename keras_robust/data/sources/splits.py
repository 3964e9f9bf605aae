"""Classes and splits of a list of file names: alike for a folder and for an archive of one."""

import random
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from keras_robust.checks import check_choice
from keras_robust.data.class_names import label_order

SPLITS = ("train", "val", "test")
# What may be asked for beside these: the images held out from training, where a data set says so, or all of it; and the
# training images where validation images come from elsewhere, so that none are held out: of no splits, all of them.
HELD_OUT = "held_out"
WHOLE_TRAIN = "whole_train"
NOTHING_HELD_OUT = "no images are held out: those that a model was trained on may be among them"
SYNONYMS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {name: split for split, names in SYNONYMS.items() for name in names}
VAL_SHARE = 0.2
# What systems put into folders by themselves.
STRAY_FILES = ("thumbs.db", "desktop.ini")
STRAY_FOLDERS = ("__macosx", "@eadir")


@dataclass(frozen=True)
class Files:
    """The files of one split.

    Attributes:
        by_class: from each class, in the order of the labels, to its files, sorted by name.
        classes_in: folder that the classes' folders lie in, relative to the data set, "" or ending in "/".
        note: what a user should know of how the split came about, "" if nothing.
    """

    by_class: dict[str, list[str]]
    classes_in: str = ""
    note: str = ""


@dataclass(frozen=True)
class Part:
    """What of a data set stands for a split that was asked for.

    Attributes:
        name: the split of the data set's own that is read, None of one that has none.
        drawn: "train" or "val", where the split is to be drawn from it; None where it is all of it.
        note: what a user should know, "" if nothing.
    """

    name: str | None
    drawn: str | None = None
    note: str = ""


def part_of(where: str, has: Collection[str], split: str | None) -> Part:
    """What of a data set with the splits `has`, out of `SPLITS`, stands for `split`; arguments as in `files_of`.

    Raises:
        ValueError: it has no such split.
    """
    check_choice("split", split, (*SPLITS, HELD_OUT, WHOLE_TRAIN, None))
    if not has:
        if split == "test":
            raise ValueError(f"split must be one of 'train', 'val', as {where} has no test part; received 'test'.")
        drawn = split if split in ("train", "val") else None
        return Part(None, drawn, NOTHING_HELD_OUT if split == HELD_OUT else "")
    if split in ("train", "val") and {*has} == {"train", "test"}:
        return Part("train", split)
    name = {HELD_OUT: next(part for part in ("val", "test", "train") if part in has), WHOLE_TRAIN: "train"}.get(
        str(split), split
    )
    if name not in has:
        listed = ", ".join(repr(part) for part in SPLITS if part in has)
        raise ValueError(f"split must be one that {where} has, {listed}; received {split!r}.")
    return Part(name, note=NOTHING_HELD_OUT if (split, name) == (HELD_OUT, "train") else "")


def is_split(name: str) -> bool:
    """Whether a folder of that name is a split by itself."""
    return name.lower() in _SPLIT_OF


def files_of(where: str, names: Iterable[str], split: str | None, seed: int) -> Files:
    """Sort the files of a data set into classes and take one split.

    Names are either `train/<class>/*` beside `val/<class>/*` or `test/<class>/*`, or `<class>/*` alone. Splits may also
    be called by their synonyms (`SYNONYMS`), in any case. Of classes alone, and of train and test without a validation
    part, a fifth of each class (at least one image) is held out as one: the same files on every machine, because names
    alone decide. Files may lie in folders below their class's.

    Args:
        where: of the data set, for messages.
        names: of its files, with `/`, relative to `where`; a folder's name ends in `/`.
        split: "train", "val" or "test"; "held_out" for "val" or else "test", or all images where there are no splits;
            "whole_train" for a train of which nothing is held out; None takes all images of `<class>/*`.
        seed: of a validation part that is drawn.

    Raises:
        ValueError: folders that look like splits and are not understood; files in hidden folders; no such split; no
            classes, or a class without images; other classes in this split than in train.
    """
    names = [name for name in names if _is_no_stray(name)]
    folders = _own_splits(where, names)
    _check_hidden(where, names, set(folders.values()))
    names = [name for name in names if not (name.startswith(".") or "/." in name)]
    found = part_of(where, folders, split)
    if found.name is None:
        return _of_whole(where, names, found, seed)
    part, note = found.name, found.note
    by_class = _classes(f"{where}/{folders[part]}", names, f"{folders[part]}/")
    for other in {"train": ("val",), "val": ("train",), "test": ("train",)}[part]:
        if other in folders:
            others = _classes(f"{where}/{folders[other]}", names, f"{folders[other]}/")
            if different := by_class.keys() ^ others.keys():
                raise ValueError(
                    f"{where}: {folders[part]} and {folders[other]} must hold the same classes; only one has "
                    f"{_listed(sorted(different))}."
                )
    if found.drawn:
        by_class = {name: _drawn(f"{where}/{name}", name, files, found.drawn, seed) for name, files in by_class.items()}
        note = f"no validation folder: a fifth of {folders['train']} is held out as one (seed {seed})"
    return Files(by_class, f"{folders[part]}/", note)


def drawn_split(name: str, count: int, split: str, seed: int) -> list[int]:
    """Which of the `count` images of the class `name` are in the split, in order."""
    order = list(range(count))
    # Python promises that Random keeps its sequence across releases.
    random.Random(f"image_folder/{seed}/{name}").shuffle(order)
    n_val = max(1, round(VAL_SHARE * count))
    return sorted(order[:n_val] if split == "val" else order[n_val:])


def drawn_places(where: str, labels: np.ndarray, class_names: Sequence[str], split: str, seed: int) -> np.ndarray:
    """Places of the images of a drawn split among those with these labels, in order: `drawn_split` of each class.

    Raises:
        ValueError: a class has one image alone.
    """
    chosen = []
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=len(class_names))))
    for name, members in zip(class_names, by_class):
        if len(members) == 1:
            raise ValueError(f"{where} must hold at least 2 images of class {name}, to draw a validation split.")
        if len(members):
            chosen.append(members[drawn_split(name, len(members), split, seed)])
    return np.sort(np.concatenate(chosen))


def _of_whole(where: str, names: Sequence[str], part: Part, seed: int) -> Files:
    by_class = _classes(where, names)
    if part.drawn is None:
        return Files(by_class, note=part.note)
    note = f"no folders of splits: a fifth of each class is held out as validation part (seed {seed})"
    drawn = {name: _drawn(f"{where}/{name}", name, files, part.drawn, seed) for name, files in by_class.items()}
    return Files(drawn, note=note)


def _own_splits(where: str, names: Sequence[str]) -> dict[str, str]:
    """From each split to its folder; empty where the folders are classes."""
    inside: dict[str, set[str]] = {}
    for name in names:
        folder, slash, rest = name.partition("/")
        if slash and folder and not folder.startswith("."):
            inside.setdefault(folder, set())
            if "/" in rest:
                inside[folder].add(rest.partition("/")[0])
    folders: dict[str, str] = {}
    for folder in sorted(inside):
        if is_split(folder):
            known = folders.setdefault(_SPLIT_OF[folder.lower()], folder)
            if known != folder:
                raise ValueError(f"{where} must hold one folder per split; {known} and {folder} are the same one.")
    others = [folder for folder in inside if not is_split(folder)]
    # A folder `train` beside others may well be a class, of railway trains.
    if folders and not others:
        return {split: folders[split] for split in SPLITS if split in folders}
    alike = len(inside) > 1 and len(set(map(frozenset, inside.values()))) == 1 and len(next(iter(inside.values()))) > 1
    if len(folders) > 1 or (alike and any(splits_in(folder) for folder in inside)):
        raise ValueError(
            f"{where} holds {_listed(sorted(inside))}: some of these look like splits, some do not. Splits are called "
            "train, val (valid, validation, dev, eval) and test; folders beside them must go, or all must be classes."
        )
    return {}


def splits_in(name: str) -> list[str]:
    """The splits that the words of a name tell, each once.

    Example:
        >>> splits_in("data/imagenet-validation-00003-of-00014.parquet")
        ['val']
    """
    words = re.split(r"[^a-z]+", name.lower())
    return [split for split in SPLITS if not {*SYNONYMS[split]}.isdisjoint(words)]


def _is_no_stray(name: str) -> bool:
    file = name.rpartition("/")[2]
    return not file.startswith(".") and file.lower() not in STRAY_FILES


def _check_hidden(where: str, names: Sequence[str], splits: set[str]) -> None:
    """Refuses files in hidden folders among those of classes and splits: they are neither."""
    found = set()
    for name in names:
        parts = name.split("/")[:-1]
        depth = 2 if parts and parts[0] in splits else 1
        found |= {part for part in parts[:depth] if part.startswith(".") or part.lower() in STRAY_FOLDERS}
    if found:
        stray = _listed(sorted(found))
        raise ValueError(f"{where} must hold folders of classes or splits; it holds {stray}, with files: remove it.")


def _drawn(where: str, name: str, members: list[str], split: str, seed: int) -> list[str]:
    if len(members) < 2:
        raise ValueError(f"{where} must hold at least 2 images, to draw a validation split; it holds one.")
    return [members[i] for i in drawn_split(name, len(members), split, seed)]


def _classes(where: str, names: Sequence[str], prefix: str = "") -> dict[str, list[str]]:
    files: dict[str, list[str]] = {}
    for name in names:
        if not name.startswith(prefix):
            continue
        folder, slash, rest = name[len(prefix) :].partition("/")
        if not slash or not folder:
            continue
        members = files.setdefault(folder, [])
        if rest and not rest.endswith("/"):
            members.append(name)
    if not files:
        raise ValueError(f"{where} must hold one folder of images per class; it holds no folders.")
    for folder, members in files.items():
        if not members:
            raise ValueError(f"{where}/{folder} must hold images; it holds none.")
    return {folder: sorted(files[folder]) for folder in label_order(files)}


def _listed(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
