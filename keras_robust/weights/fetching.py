"""Files of weights from elsewhere: downloaded once, checked, kept in a cache.

Files of the Hugging Face Hub are found by `huggingface_hub`; `gdown` downloads, and takes up a broken download where
it ended. Which file is the right one is mostly not known beforehand: the SHA-256 of what came first is noted beside it,
and any other content, on the disk or at the address, is refused from then on (trust on first use).
"""

import hashlib
import html
import json
import os
import re
import shutil
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from keras_robust.files import cache_folder, check_unpacked_sizes, write_text
from keras_robust.progress import ProgressLine
from keras_robust.weights.reading import TORCH_SUFFIXES

ADDRESSES = "gdrive:FILE_ID, hf://owner/name/file, hf://owner/name@revision/file or https://..."
GDRIVE = re.compile(r"gdrive:([-\w]{10,})")
HUB = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([^/@]+))?/([^@]+)")
SHA256 = re.compile(r"[0-9a-f]{8,64}")
# The only hosts that are trusted without encryption.
LOOPBACK = ("localhost", "127.0.0.1", "::1")
CONNECT_SECONDS, READ_SECONDS, START_SECONDS = 10, 60, 300
RETRIES, MOST_REDIRECTS = 3, 10


@dataclass(frozen=True)
class Record:
    """What is known of a file in the cache: where it came from, its SHA-256, its size in bytes."""

    address: str
    sha256: str
    size: int

    @classmethod
    def beside(cls, path: Path) -> "Record | None":
        """The record of the file at `path`; None where there is none, also where the file itself is gone."""
        place = record_path(path)
        if not place.is_file():
            return None
        try:
            return cls(**json.loads(place.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{place} is damaged: remove it and {path.name} to download anew") from error


class _Refused(ValueError):
    """A file that came, or would have come, and is not wanted."""


def record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def fetch(
    address: str, sha256: str | None = None, most: int | None = None, name: str | None = None, verbose: bool = True
) -> Path:
    """The path of a file from elsewhere; downloads it where the cache does not hold it, and never runs code from it.

    With the file in the cache nothing is asked of any server. What arrives is refused if it is a web page, a damaged
    archive or another file than known; the next call then starts anew. After a broken connection it goes on where the
    last one ended. Several processes may ask for the same file.

    Args:
        address: "gdrive:FILE_ID", "hf://owner/name/file" (or "hf://owner/name@revision/file") or "https://...".
        sha256: of the file in hexadecimal digits, or how it begins (8 or more); if not given, that of the first
            download counts, which is noted beside the file.
        most: bytes that the file may have at most.
        name: what to call the file in the cache; if not given, as at its address.
        verbose: say how far the download is.

    Returns:
        The path in `cache_folder()`.

    Raises:
        ValueError: an address of another kind; the file is another one than known, too large, or a web page.
        ConnectionError: it could not be downloaded, with the reason; the cache does not have it.
        ImportError: gdown or huggingface_hub is not installed.

    Example:

    >>> path = kr.weights.fetch(  # a file to download  # doctest: +SKIP
    ...     "hf://poloclub/RobArch/pretrained/robarch_s.pt"
    ... )
    """
    get = _way(address)
    if sha256 is not None and not SHA256.fullmatch(sha256):
        raise ValueError(f"sha256 must be None or 8 to 64 hexadecimal digits; received {sha256!r}.")
    path = _place(address, name)
    if not path.is_file():
        lock = _locks()
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock(path.with_name(f".{path.name}.lock")):
            if not path.is_file():
                _download(get, address, path, sha256, most, verbose)
                return path
    _check_known(path, address, Record.beside(path), sha256)
    return path


def is_cached(address: str, name: str | None = None) -> bool:
    """Whether `fetch` has the file and will ask no server; arguments as there."""
    return _place(address, name).is_file()


def _place(address: str, name: str | None) -> Path:
    """Where the cache keeps a file: of one name and several addresses, several files."""
    stem, dot, suffix = Path(name or address.partition(":")[2].split("?")[0]).name.partition(".")
    return cache_folder() / f"{stem}-{hashlib.sha256(address.encode()).hexdigest()[:8]}{dot}{suffix}"


def _check_known(path: Path, address: str, record: Record | None, sha256: str | None) -> None:
    """Refuses a file in the cache that is not the one that was downloaded."""
    digest = sha256_of(path)
    if not digest.startswith(sha256 or ""):
        raise ValueError(f"{path} is not the file that is known: its SHA-256 is {digest}, expected is {sha256}")
    if record is None:  # the program ended between two renames, or the file was put there
        _note(path, address, digest)
    elif record.sha256 != digest:
        raise ValueError(
            f"{path} has changed since it was downloaded from {address}: its SHA-256 was {record.sha256} and is "
            f"{digest}. Remove it to download anew"
        )


def _check_first(digest: str, path: Path, address: str, sha256: str | None, of_server: str | None) -> None:
    """Refuses a download that is another file than known, than its server says, or than came the first time."""
    record = Record.beside(path)
    for expected in (sha256, of_server):
        if not digest.startswith(expected or ""):
            raise _Refused(f"the file at {address} is another one: its SHA-256 is {digest}, expected is {expected}")
    if record is not None and sha256 is None and record.sha256 != digest:
        raise _Refused(
            f"the file at {address} is another one than at the first download: its SHA-256 was {record.sha256} and is "
            f"{digest}. To trust it from now on, remove {record_path(path)}"
        )


def _note(path: Path, address: str, digest: str) -> None:
    size = path.stat().st_size
    write_text(record_path(path), json.dumps({"address": address, "sha256": digest, "size": size}, indent=2) + "\n")


def _download(
    get: "Callable[[str, Path, _Meter], Path]",
    address: str,
    path: Path,
    sha256: str | None,
    most: int | None,
    verbose: bool,
) -> None:
    """Download to a folder aside, where a broken download stays, and put what passes the checks in its place."""
    aside = path.with_name(f".{path.name}.part")
    aside.mkdir(exist_ok=True)
    meter = _Meter(address, aside, most, verbose)
    try:
        arrived = get(address, aside, meter)
        _check_content(arrived, address, path)
        digest = sha256_of(arrived)
        _check_first(digest, path, address, sha256, meter.sha256)
    except _Refused:
        shutil.rmtree(aside)  # nothing to go on from
        raise
    except ImportError:
        raise
    except Exception as error:  # the libraries' own, and whatever an odd answer makes them raise
        raise ConnectionError(f"{address} cannot be downloaded: {_reason(error)}") from error
    finally:
        meter.close()
    _note(arrived, address, digest)
    os.replace(record_path(arrived), record_path(path))
    os.replace(arrived, path)
    shutil.rmtree(aside)


class _Meter:
    """Progress of a download, which stops one that is too large.

    Attributes:
        sha256: of the file, where its server states it.
    """

    def __init__(self, address: str, aside: Path, most: int | None, verbose: bool) -> None:
        self.sha256: str | None = None
        self._address, self._aside, self._most = address, aside, most
        self._line = ProgressLine(sys.stderr if verbose else None)
        self._announced = False

    def __call__(self, done: int, total: int | None) -> None:
        """`done` bytes are there, of `total` if the server says so."""
        size = max(done, total or 0)
        if self._most is not None and size > self._most:
            raise _Refused(f"{self._address} has {size:,} bytes or more; at most {self._most:,} are expected")
        if not self._announced:
            self._announced = True
            if (total or 0) - done > shutil.disk_usage(self._aside).free:
                raise OSError(f"{total:,} bytes have no room beside {self._aside}")
            self._line.say(f"downloading {self._address}" + (f": {total / 1e6:,.1f} MB" if total else ""))
        if self._line.due():
            self._line.show(f"{done / 1e6:,.1f}" + (f" of {total / 1e6:,.1f} MB" if total else " MB"))

    def close(self) -> None:
        self._line.close()


def _way(address: Any) -> Callable[[str, Path, _Meter], Path]:
    """How a file at that address is had."""
    if isinstance(address, str):
        if HUB.fullmatch(address):
            return _from_hub
        if GDRIVE.fullmatch(address) or (_is_safe(address) and Path(urlsplit(address).path).name):
            return _from_web
    raise ValueError(f"address must be {ADDRESSES}; received {address!r}.")


def _is_safe(address: str) -> bool:
    """Whether nobody on the way can put another file into the place of the one at an address."""
    url = urlsplit(address)
    return bool(url.hostname) and (url.scheme == "https" or (url.scheme == "http" and url.hostname in LOOPBACK))


def _final(address: str) -> str:
    """Where an https address leads, hop by hop, as gdown would follow any of them."""
    import requests  # gdown's

    place = address
    for _ in range(MOST_REDIRECTS):
        if not _is_safe(place):
            raise _Refused(f"{address} leads to {place}, which is not encrypted")
        limits = (CONNECT_SECONDS, READ_SECONDS)
        with requests.get(place, stream=True, allow_redirects=False, timeout=limits) as response:
            if not response.is_redirect:
                return place
            place = urljoin(place, response.headers["location"])
    raise _Refused(f"{address} leads on more than {MOST_REDIRECTS} times")


def _from_web(address: str, aside: Path, meter: _Meter) -> Path:
    """A file of Google Drive, with its page that asks for confirmation, or of any server."""
    try:
        import gdown
    except ImportError as error:
        raise _missing("gdown") from error
    match = GDRIVE.fullmatch(address)
    where = {"id": match[1]} if match else {"url": _final(address) if address.startswith("https:") else address}
    output = aside / "file"
    # Pages that ask for confirmation may lead to themselves, again and again.
    in_vain = threading.Event()
    clock = threading.Timer(START_SECONDS, in_vain.set)
    clock.start()

    def progress(done: int, total: int | None) -> None:
        clock.cancel()
        meter(done, total)

    try:
        gdown.download(
            **where,
            output=str(output),
            quiet=True,
            use_cookies=False,
            resume=True,
            progress=progress,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            retries=RETRIES,
            cancel=in_vain,
        )
    except gdown.DownloadCancelled as error:
        raise TimeoutError(f"nothing of it has come after {START_SECONDS} seconds") from error
    finally:
        clock.cancel()
    return output


def _from_hub(address: str, aside: Path, meter: _Meter) -> Path:
    """A file of a repository on the Hugging Face Hub; private ones with the user's own token."""
    try:
        import huggingface_hub
        from tqdm import tqdm
    except ImportError as error:
        raise _missing("huggingface_hub") from error
    repository, revision, file = HUB.fullmatch(address).groups()  # type: ignore[union-attr]
    url = huggingface_hub.hf_hub_url(repository, file, revision=revision)
    metadata = huggingface_hub.get_hf_file_metadata(url, timeout=CONNECT_SECONDS)
    meter(0, metadata.size)
    if urlsplit(metadata.location).netloc != urlsplit(url).netloc:
        # A large file, on a server of its own, behind a signed address: huggingface_hub would start anew after a break.
        meter.sha256 = metadata.etag if metadata.etag and len(metadata.etag) == 64 else None
        return _from_web(metadata.location, aside, meter)
    # Of the commit that was looked up, whatever the revision is by now.
    revision = metadata.commit_hash or revision
    bars: Any = partial(tqdm, disable=True)
    return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision, local_dir=aside, tqdm_class=bars))


def _check_content(path: Path, address: str, place: Path) -> None:
    """Refuses pages, empty files and damaged archives."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        raise _Refused(f"{address} gave an empty file")
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise _Refused(f"{address} gave a web page instead of the file{_title(head)}")
    if place.suffix in (*TORCH_SUFFIXES, ".keras") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            try:
                check_unpacked_sizes(archive)
            except ValueError as error:
                raise _Refused(f"{address} gave a file that {error}") from error
            damaged = archive.testzip()
        if damaged:
            raise _Refused(f"{address} gave a damaged file: {damaged} in it does not have its checksum")


def _title(page: bytes) -> str:
    match = re.search(r"<title[^>]*>([^<]*)", page.decode("utf-8", "replace"), re.IGNORECASE)
    text = " ".join(html.unescape(match[1]).split())[:100] if match else ""
    return f', called "{text}"' if text else ""


def _reason(error: Exception) -> str:
    """What a library says, in one line."""
    text = html.unescape(re.sub(r"<[^>]+>", "", str(error)))
    return " ".join(text.split())[:500] or type(error).__name__


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _locks() -> Any:
    try:
        from filelock import FileLock
    except ImportError as error:
        raise _missing("filelock") from error
    return FileLock


def _missing(package: str) -> ImportError:
    return ImportError(f"downloads need {package}: pip install 'keras-robust[weights]'")
