"""Shards: data sets in several files that hold many images each, found by pattern, folder or list."""

import itertools
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike, fspath

import numpy as np

from keras_robust.data.class_names import read_class_names
from keras_robust.data.sources.splits import SPLITS, Part, drawn_places, part_of, splits_in
from keras_robust.files import printable

TAR, PARQUET = ".tar", ".parquet"
CLASSES = "classes.txt"
# What may lie among shards, for people and for other programs.
_COMPANIONS = (".txt", ".json", ".md", ".csv", ".tsv", ".idx", ".index", ".npz", ".py", ".yaml", ".sha256", ".md5")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
MOST_SHARDS = MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class Shards:
    """The files of a data set.

    Attributes:
        where: what a user called them, for messages.
        folder: the folder that all of them lie in, or below.
        paths: of each, sorted.
    """

    where: str
    folder: str
    paths: tuple[str, ...]

    @property
    def suffix(self) -> str:
        """What all of them end in.

        Raises:
            ValueError: they are neither all archives nor all Parquet files.
        """
        for suffix in (TAR, PARQUET):
            if all(path.endswith(suffix) for path in self.paths):
                return suffix
        stranger = next((path for path in self.paths if not path.endswith((TAR, PARQUET))), self.paths[-1])
        raise ValueError(
            f"{self.where} must be uncompressed .tar files, or .parquet files; received {printable(stranger)}."
        )

    def by_split(self) -> dict[str | None, list[str]]:
        """The files of each split, by the words in their names and in those of folders below `folder`; else of None.

        Raises:
            ValueError: some names tell a split and others do not, or one tells two.
        """
        found: dict[str | None, list[str]] = {}
        for path in self.paths:
            splits = splits_in(os.path.relpath(path, self.folder))
            if len(splits) > 1:
                raise ValueError(f"{printable(path)} must belong to one split; its name tells {' and '.join(splits)}.")
            found.setdefault(next(iter(splits), None), []).append(path)
        if None in found and len(found) > 1:
            raise ValueError(
                f"{self.where} must tell the split of all files by their names, or of none: "
                f"{printable(found[None][0])} tells none."
            )
        return found


@dataclass(frozen=True)
class Split:
    """What stands for a split of shards.

    Attributes:
        paths: the files that are read.
        others: those whose classes must be the same ones, of training.
        part: see `part_of`.
    """

    paths: list[str]
    others: list[str]
    part: Part

    def places(self, shards: Shards, labels: np.ndarray, class_names: Sequence[str], seed: int) -> np.ndarray | None:
        """Places of the split's images among all of `paths`, None for all of them."""
        if self.part.drawn is None:
            return None
        return drawn_places(shards.where, labels, class_names, self.part.drawn, seed)

    def note(self, seed: int) -> str:
        if self.part.drawn is None:
            return self.part.note
        return f"no validation part: a fifth of each class is held out as one (seed {seed})"


def split_of(shards: Shards, split: str | None) -> Split:
    """The files of a split, which is asked for as in `splits.files_of`."""
    by_split = shards.by_split()
    part = part_of(shards.where, [name for name in SPLITS if name in by_split], split)
    others = by_split.get("train", []) if part.name in ("val", "test") else []
    return Split(by_split[part.name], others, part)


def find_shards(place: str | PathLike | Sequence[str | PathLike]) -> Shards | None:
    """The shards that a pattern, a folder, a file or a list of files means; None for what is something else.

    A pattern has braces, as `train-{0000..1023}.tar` and `{train,val}-{00..13}.parquet`. A folder is one of shards
    where the folders below it hold nothing else, apart from text; of one that holds images, too, they are the data set.

    Raises:
        ValueError: a file that is not there, a pattern that is malformed or means too many files, a list of none.
    """
    if isinstance(place, (str, PathLike)):
        name = fspath(place)
        if os.path.isdir(name):
            return _of_folder(name)
        if os.path.isfile(name):
            alone = name.endswith(PARQUET) or (name.endswith(TAR) and holds_samples(name))
            return _listed(printable(name), [name]) if alone else None
        return _listed(printable(name), _expanded(name)) if _BRACES.search(name) else None
    return _listed("path_or_name", [fspath(path) for path in place])


def holds_samples(path: str) -> bool:
    """Whether a tar archive begins with a sample as WebDataset writes it: files that differ in their suffix alone."""
    try:
        with tarfile.open(path, "r:") as archive:
            names = [member.name for member in itertools.islice(archive, 8) if member.isreg()]
    except (tarfile.TarError, OSError, ValueError):
        return False  # which opening it as an archive of a folder will tell
    keys = [sample_key(name) for name in names]
    return any(ending in ("cls", "json") and [key for key, _ in keys].count(of) > 1 for of, ending in keys)


def sample_key(name: str) -> tuple[str, str]:
    """Key and ending, in lower case, of a file in a WebDataset: what stands before and after its name's first point.

    Example:
        >>> sample_key("part.1/0017.IMG.jpg")
        ('part.1/0017', 'img.jpg')
    """
    folder, slash, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return folder + slash + stem, ending.lower()


def names_beside(shards: Shards) -> list[str] | None:
    """The names in the `classes.txt` of the shards' folder, one a line; of columns that tabs separate the last."""
    path = os.path.join(shards.folder, CLASSES)
    return [names[-1] for names in read_class_names(path)] if os.path.isfile(path) else None


def checked_names(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Names of classes, each of which must be there once."""
    if repeated := sorted({name for name in names if names.count(name) > 1}) if len({*names}) < len(names) else []:
        raise ValueError(f"{where} must name each class once; {repeated[0]!r} is there again.")
    return tuple(names)


def short_names(paths: Sequence[str]) -> list[str]:
    """The names of files below the folder that all of them lie in: each is there once, wherever that folder is.

    Example:
        >>> short_names(["/data/a/0.tar", "/data/b/0.tar"])
        ['a/0.tar', 'b/0.tar']
    """
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.path.relpath(path, folder or os.curdir).replace(os.sep, "/") for path in paths]


def stamp_of(path: str, descriptor: int | None = None) -> tuple[int, int]:
    """Size of a file in bytes, and when it was changed last, in nanoseconds: what tells that it is the same.

    Args:
        path: of the file.
        descriptor: of the file where it is open; what now lies at `path` may be another one.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        status = os.stat(path if descriptor is None else descriptor)
    except OSError as error:
        raise ValueError(f"{printable(path)} cannot be read: {error.strerror or error}") from error
    return status.st_size, status.st_mtime_ns


def check_unchanged(path: str, stamp: tuple[int, int], descriptor: int | None = None) -> None:
    """Refuses a file that is another one than when it had that stamp: its labels may be others."""
    if stamp_of(path, descriptor) != stamp:
        raise ValueError(f"{printable(path)} has changed since the data set was opened: open it anew.")


def _listed(where: str, paths: list[str]) -> Shards:
    if not paths:
        raise ValueError(f"{where} must name at least one file; it names none.")
    for path in paths:
        if not os.path.isfile(path):
            raise ValueError(f"{where}: there is no file {printable(path)}.")
    if len({*paths}) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ValueError(f"{where} must name each file once; {printable(twice)} is there again.")
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return Shards(where, folder, tuple(sorted(os.path.abspath(path) for path in paths)))


def _expanded(pattern: str) -> list[str]:
    """The names that a pattern with braces means."""
    parts = _BRACES.split(pattern)  # literal, choices, literal, choices, ..., literal
    choices = [_choices(pattern, text) if i % 2 else [text] for i, text in enumerate(parts)]
    count = 1
    for each in choices:
        count *= len(each)
        if count > MOST_SHARDS:
            raise ValueError(f"{printable(pattern)} must mean at most {MOST_SHARDS:,} files.")
    return ["".join(each) for each in itertools.product(*choices)]


def _choices(pattern: str, text: str) -> Sequence[str]:
    bounds = _RANGE.fullmatch(text)
    if bounds is None:
        if "," not in text:
            raise ValueError(
                f"{printable(pattern)}: braces must hold a range, as {{0000..1023}}, or choices, as {{train,val}}; "
                f"received {{{text}}}."
            )
        return text.split(",")
    first, last = int(bounds[1]), int(bounds[2])
    if not 0 <= last - first < MOST_SHARDS:
        raise ValueError(
            f"{printable(pattern)}: a range must rise, to at most {MOST_SHARDS:,} numbers; received {{{text}}}."
        )
    return [str(number).zfill(len(bounds[1])) for number in range(first, last + 1)]


def _of_folder(root: str) -> Shards | None:
    """The shards in a folder and those below it; none where there is anything else in those below."""
    found: list[str] = []
    try:
        for path, is_root in _files(root):
            if path.endswith((TAR, PARQUET)):
                found.append(path)
            elif not is_root and not path.lower().endswith(_COMPANIONS):
                return None
    except OSError:  # which listing it as a folder of images will tell
        return None
    # Parquet files beside archives are tables of what those hold.
    found = [path for path in found if path.endswith(TAR)] or found
    if not found:
        return None
    shards = Shards(printable(root), root, tuple(sorted(found)))
    for paths in shards.by_split().values():
        if len(folders := sorted({os.path.dirname(path) for path in paths})) > 1:
            raise ValueError(
                f"{shards.where} must hold the files of a split in one folder, as different ones are often forms of "
                f"the same images; received {', '.join(map(printable, folders[:3]))}. Name one of them, or the files "
                "by a pattern with braces."
            )
    return shards


def _files(root: str) -> Iterator[tuple[str, bool]]:
    """Files in a folder and those below, hidden ones left out, and whether they lie in the folder itself."""
    waiting, seen = [root], set()
    while waiting:
        folder = waiting.pop()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # by links
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    waiting.append(entry.path)
                else:
                    yield entry.path, folder == root
