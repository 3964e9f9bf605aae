"""Files that are there whole or not at all."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def written_aside(path: Any) -> Iterator[Any]:
    """A path beside `path` to write a file to, which is moved to `path` when the block ends.

    Where the block raises, what was at `path` before stays, and nothing else.

    Example:
        >>> with written_aside("report.json") as aside:
        ...     size = aside.write_text('{"robust": 0.5}')
    """
    path = Path(path)
    aside = path.with_name(f".{os.getpid()}.{threading.get_ident()}.{path.name}")  # with its suffix, which some need
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Any, text: Any) -> None:
    """Writes UTF-8 text, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
