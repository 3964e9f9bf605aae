"""Demo from the command line: `keras-robust demo`."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from keras_robust.cli.command import CommandParser, add_pixels, run

DESCRIPTION = """\
Show a page in which a photograph is attacked: the model's answer before and after, and the change amplified.

    keras-robust demo runs/quickstart/clean.keras runs/quickstart/robust.keras --resolution 32 --crop-pct 1
    keras-robust demo mine.keras --pixels 0..255 --resolution 64 --classes names.txt

It needs `pip install 'keras-robust[demo]'`. Of two models both are attacked, each by itself. The page loads nothing
from elsewhere and listens to this machine alone. Bounds: bytes of a photograph (--max-bytes), its pixels before it is
decoded (64 million), the radius (Linf 32/255, L2 10, L1 500), requests that wait (16); one photograph is attacked at a
time, and photographs and answers stay on the disk for 10 to 20 minutes."""
NAMES = {"class_names": "--classes", "models": "MODEL", "model": "MODEL"}


def demo(options: argparse.Namespace) -> None:
    from keras_robust import evaluation, export
    from keras_robust.demo import PhotoAttack, bundled_photos, gradio_module, launch, page
    from keras_robust.evaluation.evaluate import preprocessing_of

    gradio_module()  # before models are loaded
    models = {Path(model).stem: export.load_model(model, pixels=options.pixels) for model in options.model}
    if len(models) < len(options.model):
        raise ValueError(f"models must have file names of their own; received {', '.join(options.model)}.")
    first = next(iter(models.values()))
    known = getattr(first, "preprocessing", None)
    resolution = options.resolution or (224 if known is None else known.resolution)
    names = options.classes and [names[-1] for names in evaluation.read_class_names(options.classes)]
    preprocessing = preprocessing_of(first, options.crop_pct, None)
    attack = PhotoAttack(models, resolution, *preprocessing, names=names, n_iter=options.n_iter)
    with tempfile.TemporaryDirectory() as folder:
        examples = options.photos or bundled_photos(folder, resolution)
        blocks = page(attack, examples)
        launch(blocks, options.host, options.port, options.max_bytes, allowed_paths=[str(path) for path in examples])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser("demo", DESCRIPTION)
    parser.add_argument(
        "model", metavar="MODEL", nargs="+", help="one or two: .keras files, SavedModels, names of presets"
    )
    add_pixels(parser)
    parser.add_argument("--resolution", type=int, help="of the images, in pixels (default: the model's, else 224)")
    parser.add_argument("--crop-pct", type=float, help="crop over resized shorter side (default: the model's, 0.875)")
    parser.add_argument("--classes", type=Path, help="names of the outputs, one per line, columns by tabs")
    parser.add_argument("--photos", type=Path, nargs="+", help="to choose from (default: crops of bundled photographs)")
    parser.add_argument("--n-iter", type=int, default=40, help="gradient steps of an attack (default: 40)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    parser.add_argument("--port", type=int, help="(default: the first free one from 7860 on)")
    parser.add_argument("--max-bytes", type=int, default=10_000_000, help="of a photograph (default: 10 MB)")
    parser.add_backend()
    return run(parser, demo, parser.parse_args(arguments), NAMES)


if __name__ == "__main__":
    sys.exit(main())
