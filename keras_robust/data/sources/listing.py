"""Listing of a folder of images; that of a large one is kept, so that a million files are listed in seconds again.

A kept listing counts while each folder in it has the times with which it was listed, the change time included, which
no program can set; of the folder itself, where the index may lie, the names in it are compared. So files and folders
that are added, removed or renamed are seen. Not seen is what changes no folder: the content of a file that is written
anew in its place, and what becomes of the target of a link to a file; both are met when the image is read.
"""

import hashlib
import os
import time
from dataclasses import dataclass

import numpy as np

from keras_robust.data.sources import kept_index
from keras_robust.data.sources.packed_names import PackedNames

INDEX = "listing"  # what the kept listing of a folder is called
KEPT_FROM = 50_000  # names; fewer are listed as fast


@dataclass(frozen=True)
class Listing:
    """What is in a folder.

    Attributes:
        names: of files and folders below it, with `/`; a folder's name ends in `/`. Folders that links lead to come
            last, and only if they are new.
        links: those of the files that are links.
        all_regular: whether none of the files is a pipe, a device or a link that leads nowhere.
    """

    names: list[str]
    links: frozenset[str]
    all_regular: bool


def list_folder(root: str) -> Listing:
    """The listing of a folder: the one that was kept, if nothing has changed, or a new one.

    Raises:
        OSError: a folder that cannot be read.
    """
    for arrays in kept_index.kept(root, INDEX):
        try:
            if _is_current(root, arrays):
                links = frozenset(PackedNames(arrays["links"]))
                return Listing(list(PackedNames(arrays["names"])), links, bool(arrays["all_regular"][0]))
        except (KeyError, ValueError, IndexError, TypeError, OSError):  # of another form, or of folders that are gone
            continue
    begun = time.time()
    checksum = _checksum_of_top(root)
    listing, times = _new(root)
    below = {folder: times[folder] for folder in times if folder}
    if len(listing.names) >= KEPT_FROM and all(kept_index.settled(max(each), begun) for each in below.values()):
        arrays = {
            "names": PackedNames.of(listing.names).content,
            "links": PackedNames.of(sorted(listing.links)).content,
            "all_regular": np.array([listing.all_regular]),
            "folders": PackedNames.of(below).content,
            "times": np.array([*below.values()], np.int64),
            "top": np.frombuffer(checksum, np.uint8),
        }
        kept_index.keep(root, INDEX, arrays)
    return listing


def _is_current(root: str, arrays: dict[str, np.ndarray]) -> bool:
    folders = list(PackedNames(arrays["folders"]))
    times = np.array([_times(os.path.join(root, folder)) for folder in folders], np.int64)
    return _checksum_of_top(root) == arrays["top"].tobytes() and np.array_equal(times, arrays["times"])


def _times(folder: str) -> tuple[int, int]:
    """When the names in a folder, and when anything of it, was changed last, in nanoseconds."""
    status = os.stat(folder)
    return status.st_mtime_ns, status.st_ctime_ns


def _checksum_of_top(root: str) -> bytes:
    """A checksum of the names in the folder itself and what they are; hidden files do not count."""
    with os.scandir(root) as entries:
        found = sorted(
            (entry.name, entry.is_dir(), entry.is_symlink())
            for entry in entries
            if not entry.name.startswith(".") or entry.is_dir()
        )
    return hashlib.blake2b(repr(found).encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _new(root: str) -> tuple[Listing, dict[str, tuple[int, int]]]:
    """A listing made now, and of each folder in it, by its name, its times before."""
    names: list[str] = []
    file_links: list[str] = []
    times: dict[str, tuple[int, int]] = {}
    all_regular = True
    seen: set[tuple[int, int]] = set()
    waiting = [("", root)]
    links: list[tuple[str, str]] = []
    while waiting or links:
        prefix, folder = waiting.pop() if waiting else links.pop(0)
        times[prefix] = _times(folder)
        status = os.stat(folder)
        place = (status.st_dev, status.st_ino)
        if place in seen:
            continue
        seen.add(place)
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name, reverse=True):
                name = f"{prefix}{entry.name}"
                if not entry.is_dir():
                    names.append(name)
                    if entry.is_symlink():
                        file_links.append(name)
                    all_regular = all_regular and entry.is_file()
                elif not entry.is_symlink():
                    names.append(name + "/")
                    waiting.append((name + "/", entry.path))
                else:
                    if not _leads_up(entry.path):
                        names.append(name + "/")
                    links.insert(0, (name + "/", entry.path))
    return Listing(names, frozenset(file_links), all_regular), times


def _leads_up(link: str) -> bool:
    """Whether a link leads to a folder that it lies in."""
    target = os.path.realpath(link)
    return os.path.commonpath([target, os.path.realpath(os.path.dirname(link))]) == target
