"""Table of models from the command line: `keras-robust models`."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from keras_robust.cli.command import CommandParser, run

DESCRIPTION = """\
Print the models: parameters and multiply-adds, counted on the graph, beside the published values.

The accuracies (clean, and under AutoAttack at Linf 4/255, L2 2 and L1 75, in %) are those of the preset with the
highest one at Linf. --published prints all presets instead, the best first: kr.models.from_preset and --model of
the other commands take their names, and RobustBench's. Nothing is trained, run or downloaded."""
EXAMPLES = """\
examples:
  keras-robust models
  keras-robust models --resolutions 224 256 320 --models convnext_tiny_convstem vit_small_convstem
  keras-robust models --format csv > models.csv
  keras-robust models --published --max-parameters 30
"""


def show(options: argparse.Namespace) -> None:
    from keras_robust import models

    if options.published:
        show_table(models.published(options.max_parameters, options.sort or "linf"), options.format)
        return
    if min(options.resolutions) < 1:
        raise ValueError(f"resolutions must be positive; received {options.resolutions}.")
    for name in options.models or ():
        models.architecture(name)
    show_table(models.table(options.models, options.resolutions), options.format)


def show_table(table: Any, form: str) -> None:
    print(table.csv() if form == "csv" else table.markdown(), end="" if form == "csv" else "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser("models", DESCRIPTION, EXAMPLES)
    parser.add_argument("--models", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--resolutions", nargs="+", type=int, default=[224], metavar="PIXELS", help="default: 224")
    parser.add_argument(
        "--published", action="store_true", help="the published checkpoints instead of the architectures"
    )
    parser.add_argument("--max-parameters", type=float, metavar="M", help="with --published: at most so many, in 10^6")
    parser.add_argument(
        "--sort", choices=("linf", "clean", "l2", "l1", "parameters"), help="with --published: by what (default: linf)"
    )
    parser.add_argument("--format", choices=("markdown", "csv"), default="markdown")
    options = parser.parse_args(arguments)
    if options.published and options.models:
        parser.error("--models does not go with --published")
    for name, value in (("--max-parameters", options.max_parameters), ("--sort", options.sort)):
        if value is not None and not options.published:
            parser.error(f"{name} goes with --published alone")
    return run(parser, show, options, {"name": "--models", "most_parameters": "--max-parameters"})


if __name__ == "__main__":
    sys.exit(main())
