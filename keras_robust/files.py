"""Files that are there whole or not at all."""

import json
import os
import re
import stat
import struct
import tarfile
import threading
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_robust.machine import identity, runs

# What readers of archives and arrays raise for files that are damaged or made to harm.
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tarfile.TarError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)

MAX_UNPACKED_BYTES = 32 * 2**30
# Drawings, digits and weights of zero are packed to a hundredth; kilobytes that unpack to gigabytes are an attack.
MAX_RATIO = 200
MAX_TEXT_BYTES = 256 * 2**20
FREE_BYTES = 64 * 2**20
READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)  # Windows would turn line ends
# What `written_aside` calls its files: machine, process, thread, name.
LEFT_ASIDE = re.compile(r"\.([0-9a-f]{8})\.(\d+)\.\d+\..+")
_tidied: set[str] = set()
_reading = threading.Lock()


def check_unpacked_sizes(archive: zipfile.ZipFile) -> None:
    """Refuses a zip archive that unpacks to more than a file of its size may, before any of it is unpacked."""
    entries = archive.infolist()
    unpacked, packed = (sum(getattr(entry, size) for entry in entries) for size in ("file_size", "compress_size"))
    most = min(MAX_UNPACKED_BYTES, FREE_BYTES + MAX_RATIO * packed)
    if unpacked > most:
        raise ValueError(f"it unpacks from {packed:,} to {unpacked:,} bytes, more than the {most:,} accepted")


@contextmanager
def written_aside(path: Any) -> Iterator[Any]:
    """A path beside `path` to write a file to, which is moved to `path` when the block ends.

    Where the block raises, what was at `path` before stays, and nothing else. Files that killed processes of this
    machine left aside in the folder are removed.

    Example:
        >>> with written_aside("report.json") as aside:
        ...     size = aside.write_text('{"robust": 0.5}')
    """
    path = Path(path)
    _remove_leftovers(path.parent)
    owner = f".{identity()}.{os.getpid()}.{threading.get_ident()}."
    aside = path.with_name(owner + path.name)  # with its suffix, which some need
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _remove_leftovers(folder: Path) -> None:
    """Removes, once per folder, what processes that no longer run have left aside."""
    place = os.path.realpath(folder)
    if place in _tidied:
        return
    _tidied.add(place)
    for name in os.listdir(place) if os.path.isdir(place) else ():
        left = LEFT_ASIDE.fullmatch(name)
        if left and left[1] == identity() and not runs(int(left[2])):
            Path(place, name).unlink(missing_ok=True)


def pread(descriptor: int, size: int, offset: int) -> bytes:
    """`size` bytes of an open file from `offset` on, by any number of threads; Windows has no call for it."""
    if hasattr(os, "pread"):
        # One system call that moves no file position: forked processes may share the file, too.
        return os.pread(descriptor, size, offset)
    with _reading:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


def read_file(path: str | os.PathLike, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        ValueError: no such file, a folder, a device or a pipe, one that may not be read, or a larger one.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{printable(path)} must be a regular file.")
        if status.st_size > most:
            raise ValueError(f"{printable(path)} must have at most {most:,} bytes; it has {status.st_size:,}.")
        with open(path, "rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise ValueError(f"{printable(path)} cannot be read: {error.strerror or error}") from error


def read_text(path: str | os.PathLike) -> str:
    """The UTF-8 text in a regular file of at most `MAX_TEXT_BYTES`.

    Raises:
        ValueError: no such file, a larger one, or one that is no UTF-8; the message names it.
    """
    try:
        return read_file(path, MAX_TEXT_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{printable(path)} must be text in UTF-8; {error}") from error


def read_json(path: str | os.PathLike) -> Any:
    """What the JSON in a file says.

    Raises:
        ValueError: as `read_text`, or it is no JSON; the message names the file.
    """
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{printable(path)} must be JSON; {error}") from error


def cache_folder() -> Path:
    """The folder for downloads, compiled programs and indices: `keras_robust` in KERAS_HOME, or else in `~/.keras`."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "keras_robust"


def printable(path: str | os.PathLike) -> str:
    """A file's name as text that can be written anywhere: bytes that are not UTF-8 as escapes.

    Example:
        >>> printable(b"caf\\xe9.png".decode("utf-8", "surrogateescape"))
        'caf\\\\xe9.png'
    """
    return os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def write_text(path: Any, text: Any) -> None:
    """Writes UTF-8 text, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
