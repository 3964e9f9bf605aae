"""Print the models: parameters and multiply-adds, counted on the graph, beside the published values.

The accuracies (clean, and under AutoAttack at Linf 4/255, L2 2 and L1 75, in %) are those of the published checkpoint
with the highest one at Linf; kr.models.presets() has all, with their sources. Nothing is trained or run; the weights
are not even drawn.
"""

import argparse
import csv
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

import keras_robust

EXAMPLES = """\
examples:
  python tools/model_table.py
  python tools/model_table.py --resolutions 224 256 320 --models convnext_tiny_convstem vit_small_convstem
  python tools/model_table.py --format csv > models.csv
"""
# Parameters in 10^6 and multiply-adds in 10^9 at 224 pixels and 1,000 classes, as the publications state them. (The
# 25.0 of ResNet-50 is a slip of the publication: it has 25.6.)
PUBLISHED = {
    "resnet50": (25.0, 4.1),
    "xcit_small": (26.0, 4.8),
    "swin_base": (87.7, 15.5),
    "robarch_small": (26.1, 6.3),
    "robarch_large": (104.0, 25.7),
    "vit_small": (22.1, 4.6),
    "vit_small_convstem": (22.8, 5.0),
    "vit_medium": (None, 8.0),
    "vit_medium_convstem": (None, 8.4),
    "vit_base": (86.6, 17.6),
    "vit_base_convstem": (87.1, 17.9),
    "convnext_isotropic_small": (22.3, 4.3),
    "convnext_isotropic_small_convstem": (None, 4.7),
    "convnext_tiny": (28.6, 4.5),
    "convnext_tiny_convstem": (28.6, 4.6),
    "convnext_small": (None, 8.7),
    "convnext_small_convstem": (None, 8.8),
    "convnext_base": (88.6, 15.4),
    "convnext_base_convstem": (88.8, 16.0),
    "convnext_large": (None, 34.4),
    "convnext_large_convstem": (None, 35.5),
}


def rows(names, resolutions):
    """Yield the table's lines, lists of strings, the header first; "-" where there is no value."""
    header = ["model", "parameters", *(f"G at {resolution}" for resolution in resolutions)]
    yield [*header, "published M", "published G at 224", "clean", "Linf", "L2", "L1"]
    for name in names:
        # In a stateless scope variables have shapes, but no values.
        with keras.StatelessScope(initialize_variables=False):
            model = keras_robust.models.create(name)
            giga = [_giga_multiply_adds(model, resolution) for resolution in resolutions]
        values = [*PUBLISHED.get(name, (None, None)), *_accuracies(name)]
        published = ["-" if value is None else str(value) for value in values]
        yield [name, f"{keras_robust.models.parameters(model):,}", *giga, *published]
        keras.utils.clear_session()


def _accuracies(name):
    checkpoints = [row for row in keras_robust.models.presets().values() if row.architecture == name]
    best = max(checkpoints, key=lambda row: row.linf, default=None)
    return (None,) * 4 if best is None else (best.clean, best.linf, best.l2, best.l1)


def _giga_multiply_adds(model, resolution):
    try:
        return f"{keras_robust.models.multiply_adds(model, resolution) / 1e9:.2f}"
    except ValueError:
        # A resolution that the model cannot take.
        return "-"


def write_markdown(lines, file):
    header, *body = lines
    numbers = ["---", *["---:"] * (len(header) - 1)]
    for line in (header, numbers, *body):
        print("| " + " | ".join(line) + " |", file=file)


def write_csv(lines, file):
    csv.writer(file, lineterminator="\n").writerows([cell.replace(",", "") for cell in line] for line in lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--resolutions", nargs="+", type=int, default=[224], metavar="PIXELS", help="default: 224")
    parser.add_argument("--format", choices=("markdown", "csv"), default="markdown")
    options = parser.parse_args(arguments)
    if min(options.resolutions) < 1:
        parser.exit(2, f"{parser.prog}: --resolutions must be positive, received {options.resolutions}\n")
    for name in options.models or ():
        try:
            keras_robust.models.architecture(name)
        except ValueError as error:
            parser.exit(2, f"{parser.prog}: {error}\n")
    lines = list(rows(options.models or keras_robust.models.names(), options.resolutions))
    (write_csv if options.format == "csv" else write_markdown)(lines, sys.stdout)


if __name__ == "__main__":
    main()
