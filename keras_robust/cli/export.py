"""Export from the command line: `keras-robust export`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_robust.cli.command import CommandParser, add_pixels, run

DESCRIPTION = "Export a robust model to serve it, and verify that what is served is what was evaluated."
NAMES = {
    "class_names": "--classes",
    "dataset": "--data",
    "path_or_name": "--data",
    "norm": "--threat",
    "eps": "--threat",
}


EXAMPLES = """\
examples:
  keras-robust export robust.keras serving/flowers/1 --classes names.txt --resolution 64 --threat Linf:4/255 \\
      --report runs/robust/report.json
  keras-robust export runs/mine flowers.onnx --run-weights ema
  keras-robust export robust.keras flowers.tflite --dtype float16 --data photos/
  keras-robust export Singh2023Revisiting_ConvNeXt-T-ConvStem serving/imagenet/1

The format follows from the path: a folder is a SavedModel, .onnx ONNX, .tflite LiteRT, .keras Keras. Exit status: 0 for
an artefact that passed every check, 1 where one failed (its name is printed, nothing is written), 2 for bad arguments.
Then: keras-robust serve serving/flowers/1
"""


def parser() -> CommandParser:
    parser = CommandParser("export", DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "model",
        help=".keras file, folder of a training run, name of a preset (also RobustBench's, or hf://owner/name) or "
        "architecture, applications:NAME or hub:PRESET",
    )
    parser.add_argument("out", type=Path, help="path of the artefact")
    source = parser.add_argument_group("the model")
    source.add_argument(
        "--weights",
        type=Path,
        help="of an architecture, or of a preset that is not to be downloaded: .pt .pth .tar .safetensors .keras .h5",
    )
    add_pixels(source)
    source.add_argument("--num-classes", type=int, default=1000, help="of an architecture (default: 1000)")
    source.add_argument("--input-size", type=int, default=224, help="native size of an architecture (default: 224)")
    source.add_argument("--mean", type=float, nargs=3, help="per channel, of an architecture that normalises")
    source.add_argument("--std", type=float, nargs=3, help="per channel, of an architecture that normalises")
    source.add_argument(
        "--run-weights",
        choices=("best", "ema", "last"),
        default="best",
        help="of a training run: most robust in validation (default), latest averages, or latest raw weights",
    )
    known = parser.add_argument_group("what is known about it; a preset and a training run say most of it themselves")
    known.add_argument(
        "--classes", type=Path, help="names of the outputs, one per line, columns by tabs: the last is taken"
    )
    known.add_argument(
        "--threat", metavar="NORM:EPS", help="of the training, as Linf:4/255; verification attacks under it"
    )
    known.add_argument("--report", type=Path, help="report.json of an evaluation: goes into the model card")
    known.add_argument(
        "--resolution", type=int, help="of the evaluation, in pixels (default: the model's, else 224 or a ViT's own)"
    )
    known.add_argument(
        "--crop-pct", type=float, help="crop over resized shorter side (default: the model's, else 0.875)"
    )
    known.add_argument(
        "--interpolation", choices=("bicubic", "bilinear", "none"), help="(default: the model's, else bicubic)"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of weights (float16: LiteRT)")
    how.add_argument(
        "--data", help="images to verify on, as of keras-robust evaluate (default: crops of bundled photographs)"
    )
    how.add_argument("--n-examples", type=int, help="images to verify on (default: 100; 8 where pixels are classified)")
    how.add_argument("--no-verify", action="store_true", help="write without any check")
    how.add_argument("--overwrite", action="store_true", help="replace what is at the path")
    parser.add_backend()
    return parser


def export(options: argparse.Namespace) -> int:
    import keras_robust as kr
    from keras_robust.recipes.checkpoints import CheckpointError

    try:
        _export(options)
    except kr.export.ExportError as error:
        print(f"keras-robust export: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    except CheckpointError as error:
        raise ValueError(str(error)) from error
    return 0


def _export(options: argparse.Namespace) -> None:
    import keras_robust as kr

    given = {"threat": options.threat and kr.ThreatModel.parse(options.threat), "resolution": options.resolution}
    facts = {name: fact for name, fact in given.items() if fact is not None}
    if (Path(options.model) / "recipe.json").is_file():
        model = kr.recipes.load_run(options.model, options.run_weights)
        facts = {
            **facts_of_run(Path(options.model)),
            **{name: fact for name, fact in facts.items() if fact is not None},
        }
    else:
        normalization = None if options.mean is None else (options.mean, options.std)
        model = kr.export.load_model(
            options.model,
            options.weights,
            options.num_classes,
            options.input_size,
            normalization,
            options.pixels,
        )
    names = options.classes and [names[-1] for names in kr.evaluation.read_class_names(options.classes)]
    kr.export.export(
        model,
        options.out,
        kr.export.format_of(options.out),
        dtype=options.dtype,
        class_names=names,
        preset=options.model if options.model in kr.models.preset_names() else None,
        report=options.report,
        crop_pct=options.crop_pct,
        interpolation=options.interpolation,
        dataset=None if options.data is None else kr.evaluation.open_dataset(options.data),
        verify=False if options.no_verify else kr.export.VerificationSettings(n_examples=options.n_examples),
        overwrite=options.overwrite,
        **facts,
    )
    print(f"{options.out}: {'written, not verified' if options.no_verify else 'written and verified'}")


def facts_of_run(folder: Path) -> dict[str, Any]:
    """Threat model and resolution of a training run."""
    import keras_robust as kr

    recipe = kr.recipes.Recipe.load(folder / "recipe.json")
    trained = None if recipe.attack.kind == "none" else kr.ThreatModel(recipe.attack.norms[0], recipe.attack.eps[0])
    resolution = recipe.evaluation.resolution or recipe.data.resolution_at(recipe.training.epochs)
    return {"threat": trained, "resolution": resolution}


def main(arguments: Sequence[str] | None = None) -> int:
    its_parser = parser()
    options = its_parser.parse_args(arguments)
    if (options.mean is None) != (options.std is None):
        its_parser.error("--mean and --std go together")
    # Original and artefact share a GPU.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return run(its_parser, export, options, NAMES)


if __name__ == "__main__":
    sys.exit(main())
