"""Table of models from the command line: `keras-robust models`."""

import argparse
import sys
from collections.abc import Sequence

from keras_robust.cli.command import CommandParser, run

DESCRIPTION = """\
Print the models: parameters and multiply-adds, counted on the graph, beside the published values.

The accuracies (clean, and under AutoAttack at Linf 4/255, L2 2 and L1 75, in %) are those of the preset with the
highest one at Linf; kr.models.presets() has all, with their sources. Nothing is trained or run; weights are not
even drawn."""
EXAMPLES = """\
examples:
  keras-robust models
  keras-robust models --resolutions 224 256 320 --models convnext_tiny_convstem vit_small_convstem
  keras-robust models --format csv > models.csv
"""


def show(options: argparse.Namespace) -> None:
    from keras_robust import models

    if min(options.resolutions) < 1:
        raise ValueError(f"resolutions must be positive; received {options.resolutions}.")
    for name in options.models or ():
        models.architecture(name)
    table = models.table(options.models, options.resolutions)
    print(table.csv() if options.format == "csv" else table.markdown(), end="" if options.format == "csv" else "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser("models", DESCRIPTION, EXAMPLES)
    parser.add_argument("--models", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--resolutions", nargs="+", type=int, default=[224], metavar="PIXELS", help="default: 224")
    parser.add_argument("--format", choices=("markdown", "csv"), default="markdown")
    return run(parser, show, parser.parse_args(arguments), {"name": "--models"})


if __name__ == "__main__":
    sys.exit(main())
