"""Evaluation from the command line: `keras-robust evaluate`, with `merge`, `compare` and `table`."""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keras_robust.cli.command import CommandParser, add_pixels, run

if TYPE_CHECKING:
    from keras_robust.evaluation import Report
    from keras_robust.threat import ThreatModel

DESCRIPTION = "How robust is a model, to what, at which resolution: AutoAttack over threat models, with a report."
# Arguments of the library whose option is called otherwise.
NAMES = {
    "class_names": "--classes",
    "dataset": "--data",
    "path_or_name": "--data",
    "threat": "--threats",
    "norm": "--threats",
    "eps": "--threats",
    "name": "--model",
}

EXAMPLES = """\
examples:
  keras-robust evaluate --model robust.keras --data photo_crops --threats Linf:4/255 L2:0.5 L1:12 \\
      --resolutions 32 48 --crop-pct 1 --attack short --n-examples 200 --out runs/robust
  keras-robust evaluate --model Singh2023Revisiting_ConvNeXt-T-ConvStem --data imagenet/val \\
      --image-list robustbench.txt --threats Linf:2/255,4/255,8/255 L2:2 L1:75 --out runs/imagenet
  keras-robust evaluate --model vit_small --weights mine.safetensors --num-classes 10 --data test.npz --out runs/vit
  keras-robust evaluate --model saved_model/ --data imagenette --classes imagenet1k-classes.tsv --out runs/served

many machines (a SLURM array, say), with one folder that all can write to, or one each:
  keras-robust evaluate ... --out runs/big --shard $SLURM_ARRAY_TASK_ID/8      # 1/8 to 8/8
  keras-robust evaluate merge runs/big --out runs/big

several models side by side, with a paired test where they saw the same images:
  keras-robust evaluate compare runs/a/report.json runs/b/report.json --out runs/a-and-b

in forms that others read:
  keras-robust evaluate table runs/a runs/b --form latex > table.tex
  keras-robust evaluate table runs/a --form csv > per_image.csv

The same command continues what was stopped, at any moment. It writes report.html (to look at), report.md, report.json
and per_image.npz. Weights of a preset are downloaded once where they are not given, images never.
"""


def parser() -> CommandParser:
    parser = CommandParser("evaluate", DESCRIPTION, EXAMPLES)
    what = parser.add_argument_group("what is evaluated")
    what.add_argument(
        "--model",
        required=True,
        help=".keras, .onnx or .tflite file, SavedModel folder, name of a preset (also RobustBench's, or "
        "hf://owner/name) or architecture, applications:NAME (keras.applications) or hub:PRESET (KerasHub)",
    )
    add_pixels(what)
    what.add_argument(
        "--weights",
        type=Path,
        help="of an architecture, or of a preset that is not to be downloaded: .pt .pth .tar .safetensors .keras .h5",
    )
    what.add_argument("--num-classes", type=int, default=1000, help="of an architecture (default: 1000)")
    what.add_argument("--input-size", type=int, default=224, help="native size of an architecture (default: 224)")
    what.add_argument("--mean", type=float, nargs=3, help="per channel, of an architecture that normalises")
    what.add_argument("--std", type=float, nargs=3, help="per channel, of an architecture that normalises")
    what.add_argument("--name", help="in the report (default: the model's)")
    what.add_argument("--surrogate", type=Path, help=".keras file of a model to transfer attacks from, for a black box")

    data = parser.add_argument_group("on which images")
    data.add_argument(
        "--data",
        required=True,
        help="photo_crops, a folder of class folders (or train/ and val/ of them), .tar, .npz, .parquet, shards",
    )
    data.add_argument(
        "--split", choices=("train", "val", "test"), help="of data that has splits (default: val, or else test)"
    )
    data.add_argument("--classes", type=Path, help="names of the model's outputs, one per line, columns by tabs")
    data.add_argument("--n-examples", type=int, help="how many images (default: all)")
    data.add_argument("--image-list", type=Path, help="the images to use, <class>/<file> per line, in their order")
    data.add_argument("--skip-corrupt", action="store_true", help="leave out what cannot be read, and list it")
    data.add_argument(
        "--crop-pct",
        type=float,
        help="crop over resized shorter side (default: the model's, else 0.875)",
    )
    data.add_argument(
        "--interpolation", choices=("bicubic", "bilinear", "none"), help="(default: the model's, else bicubic)"
    )

    how = parser.add_argument_group("against what")
    how.add_argument(
        "--threats",
        nargs="+",
        default=["Linf:4/255", "L2:2", "L1:75"],
        metavar="NORM:EPS[,EPS]",
        help="(default: Linf:4/255 L2:2 L1:75, the usual radii at 224 px)",
    )
    how.add_argument("--resolutions", type=int, nargs="+", metavar="PIXELS", help="(default: the model's, else 224)")
    how.add_argument(
        "--attack",
        default="standard",
        help="standard, short, plus, rand, or fast: an estimate of standard, with its interval (default: standard)",
    )
    besides = parser.add_argument_group("what else is asked")
    besides.add_argument(
        "--corruptions",
        nargs="?",
        const=True,
        default=False,
        metavar="FOLDER",
        help="accuracy under common corruptions: a folder like ImageNet-C, or made on the fly where none is given",
    )
    besides.add_argument(
        "--shifts", nargs="+", type=Path, default=[], metavar="DATA", help="other data, as ImageNet-A, -R, -V2, -Sketch"
    )
    besides.add_argument("--calibration", action="store_true", help="calibration error and Brier score")
    besides.add_argument(
        "--eight-bit", action="store_true", help="what is left of the attacks after rounding to 8 bits"
    )
    how.add_argument("--seed", type=int, default=0, help="of the choice of images and of the attacks (default: 0)")

    how_it_runs = parser.add_argument_group("how it runs")
    how_it_runs.add_argument("--out", type=Path, required=True, help="folder of the report and of what is found so far")
    how_it_runs.add_argument("--batch-size", type=int, default=128, help="images attacked at a time (default: 128)")
    how_it_runs.add_argument("--shard", metavar="I/N", help="only the I-th of N parts, from 1")
    how_it_runs.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_backend()
    return parser


def parser_of(command: str, description: str) -> CommandParser:
    parser = CommandParser(f"evaluate {command}", description)
    if command == "merge":
        parser.add_argument("folders", nargs="+", type=Path, help="what the shards were given as --out")
        parser.add_argument("--out", type=Path, required=True, help="folder of the report")
        return parser
    parser.add_argument("reports", nargs="+", type=Path, help="report.json files, or their folders")
    parser.add_argument("--names", nargs="+", help="of the models (default: those in the reports)")
    if command == "compare":
        parser.add_argument("--out", type=Path, help="folder for report.html and report.md")
    else:
        parser.add_argument(
            "--form", default="text", help="text, markdown, latex, csv (a row per image) or robustbench (default: text)"
        )
    return parser


def evaluate(options: argparse.Namespace) -> None:
    import keras_robust as kr
    from keras_robust.attacks.batching import divide_cores

    started = time.monotonic()
    divide_cores(min(options.batch_size, options.n_examples or options.batch_size))
    name = options.model
    normalization = None if options.mean is None else (options.mean, options.std)
    model = kr.export.load_model(
        name, options.weights, options.num_classes, options.input_size, normalization, options.pixels
    )
    report = kr.evaluation.evaluate(
        model,
        kr.evaluation.open_dataset(options.data, options.split),
        threats(options.threats),
        options.resolutions or [model.preprocessing.resolution if hasattr(model, "preprocessing") else 224],
        options.attack,
        options.n_examples,
        options.seed,
        options.out,
        name=options.name or (name if name in kr.models.preset_names() else Path(name).stem),
        batch_size=options.batch_size,
        crop_pct=options.crop_pct,
        interpolation=options.interpolation,
        class_names=options.classes,
        image_list=options.image_list,
        skip_corrupt=options.skip_corrupt,
        shard=None if options.shard is None else shard(options.shard),
        corruptions=options.corruptions,
        shifts=shifts(options.shifts),
        calibration=options.calibration,
        eight_bit=options.eight_bit,
        surrogate=None if options.surrogate is None else kr.export.load_model(options.surrogate),
        verbose=not options.quiet,
    )
    if report is None:
        print(f"shard {options.shard} is done; when all are: keras-robust evaluate merge {options.out} --out ...")
    else:
        finish({report.name: report}, options.out)
    print(f"{time.monotonic() - started:.1f} s")


def merge(options: argparse.Namespace) -> None:
    import keras_robust as kr

    report = kr.evaluation.merge(options.folders, options.out)
    finish({report.name: report}, options.out)


def compare(options: argparse.Namespace) -> None:
    import keras_robust as kr

    reports = load(options)
    if options.out is not None:
        kr.evaluation.write_comparison(reports, options.out)
    finish(reports, options.out)


def show(options: argparse.Namespace) -> None:
    import keras_robust as kr

    print(kr.evaluation.render(load(options), options.form))


def load(options: argparse.Namespace) -> dict[str, "Report"]:
    """The reports that were named, by different names."""
    import keras_robust as kr

    found = [kr.evaluation.Report.load(path) for path in options.reports]
    names = options.names or [report.name for report in found]
    if len(names) != len(found):
        raise ValueError(f"names must be one per report; received {len(names)} for {len(found)}.")
    if len(set(names)) < len(names):
        names = [f"{name} ({path.parent.name or path})" for name, path in zip(names, options.reports)]
    if len(set(names)) < len(names):
        raise ValueError(f"names must differ; received {', '.join(names)}.")
    return dict(zip(names, found))


def finish(reports: Mapping[str, "Report"], out: Path | None) -> None:
    import keras_robust as kr

    print(f"\n{kr.evaluation.table(reports)}")
    for name, report in reports.items():
        for section in kr.evaluation.sections(report):
            print(f"\n{f'{name}: ' if len(reports) > 1 else ''}{section}")
    if len(reports) > 1:
        print(kr.evaluation.pairs_table(reports))
    for name, report in reports.items():
        if report.settings.images.note:
            print(f"note: {name}: {report.settings.images.note}")
        if report.images.skipped:
            print(f"skipped {len(report.images.skipped)} images that could not be read:")
            print("\n".join(f"  {reason}" for reason in report.images.skipped))
    if out is not None:
        print(f"\n{out / 'report.html'}")


def threats(texts: Sequence[str]) -> list["ThreatModel"]:
    """Threat models of "Linf:4/255,8/255" and the like.

    Raises:
        ValueError: a text is of another form.
    """
    from keras_robust.threat import ThreatModel

    found = []
    for text in texts:
        norm, _, radii = text.partition(":")
        found += [ThreatModel.parse(f"{norm}:{radius}") for radius in radii.split(",")]
    return found


def shifts(paths: Sequence[Path]) -> dict[str, Path]:
    """Other data by the names of their files or folders.

    Raises:
        ValueError: two have the same name.
    """
    found = {path.name: path for path in paths}
    if len(found) < len(paths):
        raise ValueError(f"shifts must have different names; received {', '.join(path.name for path in paths)}.")
    return found


def shard(text: str) -> tuple[int, int]:
    part, slash, parts = text.partition("/")
    if not slash or not part.isdigit() or not parts.isdigit():
        raise ValueError(f"shard must be I/N, as 1/8; received {text!r}.")
    return int(part), int(parts)


COMMANDS = {
    "merge": (merge, "Make the report of an evaluation whose shards are done."),
    "compare": (compare, "Show reports side by side, the others tested against the first image by image."),
    "table": (
        show,
        "Print reports in a form that others read: for papers, spreadsheets, RobustBench.",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments and arguments[0] in COMMANDS:
        command, description = COMMANDS[arguments[0]]
        its_parser = parser_of(arguments[0], description)
        return run(its_parser, command, its_parser.parse_args(arguments[1:]))
    its_parser = parser()
    options = its_parser.parse_args(arguments)
    if (options.mean is None) != (options.std is None):
        its_parser.error("--mean and --std go together")
    return run(its_parser, evaluate, options, NAMES, "; the same command goes on from here")


if __name__ == "__main__":
    sys.exit(main())
