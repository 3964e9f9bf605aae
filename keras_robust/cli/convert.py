"""Conversion of weights from the command line: `keras-robust convert`."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_robust.cli.command import CommandParser, run

DESCRIPTION = (
    "Convert published or own weights: PyTorch to Keras, Keras to PyTorch, any of them to another number of classes."
)

EXAMPLES = """\
examples:
  keras-robust convert --preset Singh2023Revisiting_ConvNeXt-T-ConvStem --out robust.keras
  keras-robust convert --preset convnext_tiny_convstem_300ep --weights downloaded.pt --out robust.keras
  keras-robust convert --model vit_small --weights vit_small_timm.safetensors --out vit_small.weights.h5
  keras-robust convert --model vit_base --weights deit.pth --out ten.keras --num-classes 10 --head skip
  keras-robust convert --model convnext_base_convstem --weights convnext_base.pth --out start.keras --stem skip
  keras-robust convert --model convnext_tiny --weights trained.keras --out trained.safetensors
  keras-robust convert --model swin_base --weights ares.pth --out swin.keras \\
      --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225

Names of models: keras-robust models, of presets: keras-robust models --published. The weights of a preset are
downloaded where they are not given.
"""
OUTPUTS = (".keras", ".weights.h5", ".safetensors")


def parse(parser: CommandParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="name of the architecture")
    what.add_argument("--preset", help="name of the published checkpoint")
    parser.add_argument(
        "--weights", type=Path, help="file to read: .pt .pth .tar .safetensors .keras .h5 (needed with --model)"
    )
    parser.add_argument("--out", type=Path, required=True, help=f"file to write: {' '.join(OUTPUTS)}")
    parser.add_argument("--entry", help="which state dict of the file, where it holds several")
    parser.add_argument("--head", choices=["skip"], help="do not read the classifier: it stays random")
    parser.add_argument("--stem", choices=["skip"], help="do not read the stem: it stays random")
    parser.add_argument("--num-classes", type=int, default=1000, help="logits of the model (default: 1000)")
    parser.add_argument("--input-size", type=int, default=224, help="native resolution of a ViT (default: 224)")
    parser.add_argument("--mean", type=float, nargs=3, help="per channel, for a model that normalises")
    parser.add_argument("--std", type=float, nargs=3, help="per channel, for a model that normalises")
    parser.add_argument("--seed", type=int, default=0, help="of what stays random (default: 0)")
    options = parser.parse_args(arguments)
    if not options.out.name.endswith(OUTPUTS):
        parser.error(f"--out must end in one of {', '.join(OUTPUTS)}; received {options.out}")
    if not options.out.parent.is_dir():
        parser.error(f"there is no folder {options.out.parent}")
    if (options.mean is None) != (options.std is None):
        parser.error("--mean and --std go together")
    if options.weights is None and options.preset is None:
        parser.error("--weights is required with --model")
    if options.preset and options.mean:
        parser.error("--mean and --std do not go with --preset, which knows them")
    return options


def build(options: Any) -> Any:
    import keras_robust as kr

    if options.preset is None:
        name, normalization = options.model, None if options.mean is None else (options.mean, options.std)
    else:
        preset = kr.models.preset(options.preset, buildable=True)
        name, normalization = preset.architecture, preset.normalization
    return kr.models.create(name, options.num_classes, options.input_size, normalization=normalization)


def write(model: Any, options: Any) -> Any:
    """Write aside, reload what was written and compare, then rename; returns the largest logit."""
    import keras_robust as kr
    from keras_robust.files import written_aside

    with written_aside(options.out) as aside:
        if options.out.suffix == ".safetensors":
            kr.weights.save(model, aside)
        else:
            model.save(aside) if options.out.suffix == ".keras" else model.save_weights(aside)
        return verify(model, aside, options)


def verify(model: Any, path: Any, options: Any) -> Any:
    """Reload `path` into a new model and compare logits; returns the largest one.

    Raises:
        ValueError: they differ by more than rounding.
    """
    import keras
    import numpy as np

    import keras_robust as kr

    if path.suffix == ".keras":
        reloaded = keras.models.load_model(path)
    else:
        reloaded = build(options)
        kr.weights.load(reloaded, path)
    size = options.input_size
    x = np.random.default_rng(0).random((1, size, size, 3), dtype="float32")
    expected, logits = model.predict(x, verbose=0), reloaded.predict(x, verbose=0)
    if not np.allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max()):
        raise ValueError(
            f"{options.out} is not written: what was reloads with logits that differ by up to "
            f"{np.abs(logits - expected).max():.3g}"
        )
    return float(np.abs(logits).max())


def convert(options: argparse.Namespace) -> None:
    import keras

    import keras_robust as kr

    started = time.monotonic()
    keras.utils.set_random_seed(options.seed)
    model = build(options)
    print(f"built {model.name}: {kr.models.parameters(model):,} parameters", flush=True)
    stated = options.preset is not None
    path = options.weights or kr.models.preset_file(options.preset)
    kr.weights.load(model, path, options.head, options.stem, options.entry, stated=stated)
    print(f"read {path}", flush=True)
    largest = write(model, options)
    print(f"wrote {options.out}: {options.out.stat().st_size:,} bytes")
    print(f"verified: the same logits after reloading, the largest {largest:.6g}")
    print(f"sha256 {kr.weights.sha256_of(options.out)}")
    print(f"{time.monotonic() - started:.1f} s")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser("convert", DESCRIPTION, EXAMPLES)
    options = parse(parser, arguments)
    return run(parser, convert, options, {"name": "--preset" if options.preset else "--model"})


if __name__ == "__main__":
    sys.exit(main())
