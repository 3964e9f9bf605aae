"""Command line of the package: `keras-robust COMMAND ...`, one module per command."""

import importlib
import sys
from collections.abc import Sequence

# Command -> its module here, and what it does.
COMMANDS = {
    "quickstart": ("quickstart", "train a small robust model beside a clean one, and see what the attacks leave"),
    "train": ("train", "train a published system on your images; --list shows them"),
    "evaluate": ("evaluate", "how robust a model is, to what, at which resolution (also: evaluate merge, compare)"),
    "export": ("export", "write a model to serve, and verify it"),
    "convert": ("convert", "weights from and to PyTorch"),
    "models": ("models", "the architectures: parameters, multiply-adds, published accuracies"),
    "serve": ("serve", "serve an exported model over HTTP"),
    "demo": ("demo", "a page in which a photograph is attacked, two models side by side"),
    "load-test": ("load_test", "how fast a server is, and what it refuses"),
}
HELP = """usage: keras-robust COMMAND ...

Adversarially robust image models for Keras 3.

commands:
{commands}

keras-robust COMMAND --help says what a command takes, with examples.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status: 2 for bad arguments, with one line on the standard error."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP.format(commands="\n".join(f"  {name:12}{text}" for name, (_, text) in COMMANDS.items())), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from keras_robust import __version__

        print(f"keras-robust {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        from keras_robust.checks import did_you_mean

        hint = did_you_mean(arguments[0], COMMANDS)
        print(
            f"keras-robust: COMMAND must be one of {', '.join(COMMANDS)}; received {arguments[0]!r}.{hint}",
            file=sys.stderr,
        )
        return 2
    module, _ = COMMANDS[arguments[0]]
    return importlib.import_module(f"keras_robust.cli.{module}").main(arguments[1:])
