"""Indices of large data sets, kept beside them or, where nothing can be written there, in the user's cache folder.

What an index says of a file or folder counts while that has the times (and size) with which it was indexed. One that
was changed less than `SETTLED_SECONDS` before it was read is not kept: a later change might leave it the same time.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_robust.files import cache_folder, written_aside
from keras_robust.npz import read_arrays

VERSION = 2  # of what indices hold; others are not read
SETTLED_SECONDS = 3.0  # FAT knows times to two seconds


def kept(folder: str, name: str) -> Iterator[dict[str, np.ndarray]]:
    """The indices called `name` of what lies in `folder`, as arrays by name; damaged ones are passed over."""
    for path in _places(folder, name):
        if path.is_file():
            with contextlib.suppress(ValueError, OSError):
                arrays = read_arrays(path)
                if arrays.get("version", np.zeros(1)).tolist() == [VERSION]:
                    yield arrays


def keep(folder: str, name: str, arrays: dict[str, np.ndarray]) -> None:
    """Keeps an index for `kept`; where nothing can be written at all, it is made anew each time."""
    for path in _places(folder, name):
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_aside(path) as aside:
                np.savez(aside, allow_pickle=False, version=np.array([VERSION]), **arrays)
            return


def settled(changed: int, begun: float) -> bool:
    """Whether what was changed last at `changed`, in nanoseconds, was at rest when one began to read it, in seconds."""
    return begun - changed / 1e9 > SETTLED_SECONDS


def _places(folder: str, name: str) -> tuple[Path, Path]:
    """Beside the data, as a hidden file, and in the user's cache folder."""
    digest = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16]
    return Path(folder, f".keras_robust-{name}.npz"), cache_folder() / "indices" / f"{digest}-{name}.npz"
