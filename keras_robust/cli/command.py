"""Common ground of the commands: a parser that says what was wrong in one line, and errors in the user's words."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from keras_robust.compilation_cache import keep_compiled

INTERRUPTED = 130


class CommandParser(argparse.ArgumentParser):
    """A parser whose help keeps its line breaks, and whose errors are one line with exit code 2."""

    def __init__(self, command: str, description: str | None, examples: str = "") -> None:
        super().__init__(
            prog=f"keras-robust {command}",
            description=description,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        from keras_robust.checks import did_you_mean

        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        known = [option for action in self._actions for option in action.option_strings]
        hint = did_you_mean(unknown[1], known) if unknown else ""
        self.exit(2, f"{self.prog}: {message}{hint}\n")

    def add_backend(self) -> None:
        self.add_argument(
            "--backend", choices=("tensorflow", "jax", "torch"), help="default: KERAS_BACKEND or tensorflow"
        )

    def typed(self, message: str, names: Mapping[str, str]) -> str:
        """A message of the library, with the argument that it begins with called as the user typed it.

        Args:
            message: such as "n_examples must be ...".
            names: argument of the library -> option, where the one does not follow from the other.
        """
        options = {
            action.dest: max(action.option_strings, key=len) for action in self._actions if action.option_strings
        }
        first = re.match(r"\w+", message)
        option = {**options, **names}.get(first[0]) if first else None
        return option + message[len(first[0]) :] if first and option else message


def add_pixels(group: Any) -> None:
    """The option for models of other origin; `group` is a parser or a group of its arguments."""
    group.add_argument(
        "--pixels",
        help="what the model of a .keras file of other origin takes: 0..1, 0..255, imagenet, applications:NAME, or "
        "-1..1, written --pixels=-1..1; see kr.adapt",
    )


def run(
    parser: CommandParser,
    function: Callable[[Any], int | None],
    options: argparse.Namespace,
    names: Mapping[str, str] | None = None,
    goes_on: str = "",
) -> int:
    """Run a command and say in one line why it could not; returns its exit status.

    Args:
        function: the command; it may return another exit status than 0.
        names: see `CommandParser.typed`.
        goes_on: what to add where it was interrupted.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if getattr(options, "backend", None):
        os.environ["KERAS_BACKEND"] = options.backend
    if os.environ.get("KERAS_BACKEND") == "jax":
        keep_compiled()
    try:
        return function(options) or 0
    except ModuleNotFoundError as error:
        hint = "" if "pip install" in str(error) else f": pip install {error.name}"
        print(f"{parser.prog}: {error}{hint}", file=sys.stderr)
        return 2
    except (ValueError, OSError, ImportError) as error:
        message = parser.typed(" ".join(str(error).split()), names or {})
        print(f"{parser.prog}: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{parser.prog}: interrupted{goes_on}", file=sys.stderr)
        return INTERRUPTED
