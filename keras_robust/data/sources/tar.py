"""A tar archive of an image folder, read where it lies: nothing is ever unpacked to disk."""

import os
import tarfile
import weakref
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import IO, Any, BinaryIO, Self, cast

import numpy as np

from keras_robust.data.sources.base import EncodedSource
from keras_robust.data.sources.splits import files_of, is_split
from keras_robust.files import DAMAGE, READ_ONLY, pread, printable

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz")
# An image of MAX_PIXELS in 32 bits, and what a compressed archive may unpack to in memory.
MAX_MEMBER_BYTES = 256 * 2**20
MAX_UNPACKED_BYTES = 4 * 2**30
# Zeros at an archive's end; a download that was broken off may leave more, where its file was allocated as a whole.
MAX_END_BYTES = 2**20
# What gzip, bzip2 and xz files begin with.
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")


class TarArchive(EncodedSource):
    """Images in a `.tar` of an image folder, one folder per class, with or without splits: see `ImageFolder`.

    The archive is indexed once, when it is opened. An uncompressed one is then read at random, an image at a time, by
    any number of threads and processes; one packed by gzip, bzip2 or xz is unpacked into memory, up to 4 GiB. A folder
    that holds everything (`imagenette/train/...`) is looked through.

    Args:
        path: of the archive.
        split: "train", "val" or "test"; None takes all images of `<class>/*`.
        seed: of the split of an archive that has none of its own.

    Raises:
        ValueError: no archive, a truncated or damaged one, one with names outside of it (`..` or absolute), sparse or
            linked files, files or contents larger than the limits; else as `ImageFolder`. The message names the file.
    """

    def __init__(self, path: str | PathLike, split: str | None, seed: int = 0) -> None:
        self.path = Path(path)
        self._content, members = open_tar(self.path)
        names = _without_common_folder(members)
        found = files_of(str(path), names, split, seed)
        files, self.note, self._classes_in = found.by_class, found.note, found.classes_in
        self.class_names = tuple(printable(name) for name in files)
        self.names = [name for group in files.values() for name in group]
        self.labels = np.repeat(np.arange(len(files)), [len(group) for group in files.values()])
        self._places = np.array([members[names[name]] for name in self.names], np.int64)

    def name(self, index: int) -> str:
        return printable(f"{self.path}:{self.names[index]}")

    def identifier(self, index: int) -> str:
        return printable(self.names[index].removeprefix(self._classes_in))

    def file_size(self, index: int) -> int | None:
        return int(self._places[index][1])

    def encoded(self, index: int) -> bytes:
        return self._content.read(*(int(number) for number in self._places[index]))


class TarContent:
    """The bytes of an archive: of its file, opened anew in each process, or unpacked in memory.

    Args:
        path: of the archive.
        memory: its unpacked bytes, uint8; None for the file as it is, which is open at `descriptor`.
    """

    def __init__(self, path: Path, memory: np.ndarray | None) -> None:
        self._path, self._memory = path, memory
        if memory is None:
            self.descriptor = os.open(path, READ_ONLY)
            weakref.finalize(self, os.close, self.descriptor)

    def __reduce__(self) -> tuple[Any, ...]:
        return TarContent, (self._path, self._memory)

    def read(self, offset: int, size: int) -> bytes:
        if self._memory is not None:
            return bytes(self._memory[offset : offset + size])
        return pread(self.descriptor, size, offset)


def open_tar(path: Path) -> tuple[TarContent, dict[str, tuple[int, int]]]:
    """The content of a tar archive, and from each member's name to its (offset, size) there.

    Raises:
        ValueError: as `TarArchive`.
    """
    if not path.is_file():
        raise ValueError(f"path must be a tar archive; there is no file {str(path)!r}.")
    try:
        members, memory = _members(path)
    except ValueError:
        raise
    except DAMAGE as error:
        raise ValueError(f"{path} cannot be read as a tar archive: {error or type(error).__name__}") from error
    return TarContent(path, memory), members


def _members(path: Path) -> tuple[Any, ...]:
    """From each member's name to (offset, size), in the file or, where it is compressed, in the bytes returned."""
    members: dict[str, tuple[int, int]] = {}
    with path.open("rb") as file:
        compressed = file.read(6).startswith(_PACKED)
        file.seek(0)
        if not compressed:
            members = {name: (offset, size) for name, offset, size in plain_members(path, file)}
            memory = None
        else:
            memory = bytearray()
            with tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member) as archive:
                for member, name in _checked(path, archive):
                    if member.isdir():
                        members[name] = (0, 0)
                        continue
                    offset = len(memory)
                    if offset + member.size > MAX_UNPACKED_BYTES:
                        raise ValueError(
                            f"{path} unpacks to more than {MAX_UNPACKED_BYTES:,} bytes: "
                            "store it as an uncompressed .tar, which is read image by image."
                        )
                    memory += cast(IO[bytes], archive.extractfile(member)).read()
                    if len(memory) - offset != member.size:
                        raise tarfile.ReadError(f"it ends within {member.name!r}")
                    members[name] = (offset, member.size)
    if not members:
        raise tarfile.ReadError("it is empty")
    # An array, which worker processes look at together.
    return members, None if memory is None else np.frombuffer(memory, np.uint8)


def plain_members(path: Path, file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each file and folder of an open archive that is not compressed; folders end in `/`.

    Raises:
        ValueError: as `TarArchive`; other exceptions of `DAMAGE` where it is no archive, or was cut.
    """
    length = os.fstat(file.fileno()).st_size
    with tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as archive:
        for member, name in _checked(path, archive):
            if member.offset_data + member.size > length:
                raise tarfile.ReadError(f"it ends within {member.name!r}")
            yield name, member.offset_data, member.size


class _Member(tarfile.TarInfo):
    """A member whose header must be whole: `tarfile` takes a damaged one for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        if not buf:  # at its end every archive has blocks of zeros
            raise tarfile.ReadError("it was cut: it has no end")
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise tarfile.ReadError(f"the header of a member is damaged: {error}") from error
            raise


def _checked(path: Path, archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """The members of an archive, and what they are called here; refuses one that goes on after its end."""
    while (member := archive.next()) is not None:
        # TarFile keeps every header that it has read, a kilobyte each.
        archive.members.clear()  # type: ignore[attr-defined]
        name = member.name.removeprefix("./")
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{path} must hold names inside of it; received {member.name!r}.")
        if member.isdir():
            if name not in ("", "."):
                yield member, name + "/"
            continue
        if not member.isreg() or member.issparse():
            raise ValueError(f"{path} must hold plain files and folders; {member.name!r} is neither.")
        if member.size > MAX_MEMBER_BYTES:
            raise ValueError(
                f"{path} must hold files of at most {MAX_MEMBER_BYTES:,} bytes; {member.name!r} has {member.size:,}."
            )
        yield member, name
    rest = cast(IO[bytes], archive.fileobj).read(MAX_END_BYTES + 1)
    if len(rest) > MAX_END_BYTES or any(rest):
        raise tarfile.ReadError(f"it goes on after its end at byte {archive.offset:,}: damaged, or several in one")


def _without_common_folder(members: dict[str, tuple[int, int]]) -> dict[str, str]:
    """From names without a folder that holds everything but no images to the names of the members."""
    names = {name: name for name in members}
    while True:
        tops = {name.split("/", 1)[0] for name in names}
        inner = {name.split("/", 1)[1]: whole for name, whole in names.items() if "/" in name}
        inner.pop("", None)
        if len(tops) != 1 or all(map(is_split, tops)) or not any("/" in name.rstrip("/") for name in inner):
            return names
        if not all("/" in name for name in inner):
            return names
        names = inner
