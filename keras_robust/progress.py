"""Progress display of long work: one line on a terminal, a line every half minute elsewhere."""

import time
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.live import Live

QUIET_SECONDS = 30.0  # between two lines where there is no terminal to rewrite one
TERMINAL_SECONDS = 0.5


class ProgressLine:
    """A line that says how far some work has come, drawn by `rich`.

    On a terminal one line is rewritten, at most twice a second; elsewhere a line is printed every 30 seconds.

    Args:
        stream: where to; None for nowhere.

    Example:
        >>> import sys
        >>> line = ProgressLine(sys.stdout)
        >>> line.say("reading 200 images")
        reading 200 images
        >>> line.close()
    """

    def __init__(self, stream: IO[str] | None) -> None:
        from rich.console import Console

        self._console = None if stream is None else Console(file=stream, highlight=False, markup=False, soft_wrap=True)
        self._interval = TERMINAL_SECONDS if self.is_terminal else QUIET_SECONDS
        self._live: Live | None = None
        self._shown = time.monotonic()

    @property
    def is_terminal(self) -> bool:
        return self._console is not None and self._console.is_terminal

    def due(self) -> bool:
        """Whether it is time for `show`."""
        return time.monotonic() - self._shown >= self._interval

    def show(self, text: str) -> None:
        """Show how far the work is: rewrites the line, or prints one."""
        self._shown = time.monotonic()
        if self._console is None:
            return
        if not self.is_terminal:
            self.say(text)
            return
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self._console is not None:
            self._console.print(text)
            self._console.file.flush()

    def close(self) -> None:
        """Leave the line; it can be shown again."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def duration(seconds: float) -> str:
    """Seconds in words.

    Example:
        >>> duration(3900)
        '1 h 5 min'
    """
    whole = max(round(seconds), 0)
    for size, unit, smaller, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {small_unit}"
    return f"{whole} s"
