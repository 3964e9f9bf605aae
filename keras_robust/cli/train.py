"""Training of recipes from the command line: `keras-robust train NAME`, and what the scripts in `recipes/` call."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from keras_robust.cli.command import CommandParser, add_pixels, run
from keras_robust.recipes.imagenet import SYSTEMS

if TYPE_CHECKING:
    from keras_robust.recipes.config import Recipe

DESCRIPTION = """\
Train a published robust model on ImageNet, or on your own images.

Each system is trained as Singh, Croce and Hein (2023) do: 2-step APGD (other systems: their own number of steps) under
Linf 4/255, from a clean model, with heavy augmentation and averaged weights. The same command goes on with an
interrupted run, from its last checkpoint, bit for bit."""
EXAMPLES = """\
examples:
  keras-robust train --list
  keras-robust train convnext_tiny_convstem --smoke
  python recipes/clean_pretraining.py --data imagenet --start convnext_tiny.safetensors --out runs/clean
  keras-robust train convnext_tiny_convstem --data imagenet --start runs/clean --out runs/robust
  keras-robust train convnext_tiny_convstem --data tfds:imagenet2012 --start runs/clean \
      --set training.accumulate=4 --set data.batch_size=160      # fewer than eight accelerators
  keras-robust train vit_small_convstem --data imagenet --set attack.eps=8/255 --show
  tensorboard --logdir runs/robust/logs

exit status: 0 at the end, 2 for settings that make no sense, 3 where training broke, 4 where a checkpoint could not be
written, 75 after SIGTERM: a checkpoint is written, and the same command goes on."""
NAMES = {"source": "--data", "path_or_name": "--data", "weights": "--start", "name": "NAME"}
SMALL = {"convnext": "convnext_atto", "vit": "vit_tiny"}
SMOKE = (
    "data.source=photo_crops",
    "data.validation=none",
    "data.resolution=32",
    "data.schedule=",
    "data.batch_size=8",
    "training.epochs=2",
    "training.steps_per_epoch=4",
    "training.warmup_epochs=none",
    "training.precision=float32",
    "attack.eps_warmup_epochs=0",
    "evaluation.n_examples=16",
    "evaluation.n_iter=3",
    "evaluation.batch_size=none",
    "evaluation.resolution=none",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train a published system; see `keras_robust.recipes.imagenet`."""
    return run_recipes(SYSTEMS, imagenet_recipe, "train", DESCRIPTION, EXAMPLES, arguments)


def run_recipe(recipe: Callable[[], "Recipe"], script: str, arguments: Sequence[str] | None = None) -> int:
    """Train one recipe as the command line says: what a script in `recipes/` with one recipe calls.

    Args:
        recipe: makes it; called once the arguments are understood.
        script: documentation of the script.
        arguments: of the command line; those of the process if not given.

    Returns:
        The exit status: 2 where the settings do not make sense, 3 where training broke, 4 where a checkpoint could not
        be written. A process that was told to end ends with 75 and can be started again.
    """
    return run_recipes((), lambda name: recipe(), "train", script, arguments=arguments)


def run_recipes(
    names: Iterable[str],
    make: Callable[[str], "Recipe"],
    command: str,
    description: str,
    examples: str = "",
    arguments: Sequence[str] | None = None,
) -> int:
    """As `run_recipe`, for several recipes by name, the first argument of the command line."""
    parser = _parser(tuple(names), command, description, examples)
    options = parser.parse_args(arguments)
    if getattr(options, "list", False):
        return run(parser, lambda options: print(_imagenet_table()), options)
    if options.name is None and options.names:
        parser.error(f"NAME must be one of {', '.join(options.names)} (--list shows them)")
    names = NAMES | ({"path_or_name": "--data or --validation"} if options.validation else {})
    return run(parser, lambda options: _train(parser, make(options.name), options), options, names)


def _train(parser: CommandParser, recipe: "Recipe", options: argparse.Namespace) -> int:
    from keras_robust.recipes import cost
    from keras_robust.recipes.checkpoints import CheckpointError
    from keras_robust.recipes.guards import Preempted, TrainingBroken
    from keras_robust.recipes.runner import train
    from keras_robust.training import distribution

    recipe = _chosen(recipe, options)
    if options.show:
        print(f"{recipe.name} on ImageNet: {cost.describe(recipe)}", flush=True)
        print(recipe.to_json(), end="")
        return 0
    devices = distribution.start(options.distribution)
    if not options.smoke:
        for warning in recipe.warns:
            print(f"warning: {warning}", file=sys.stderr, flush=True)
    try:
        train(recipe, options.out or Path("runs") / recipe.name, distribution=devices)
    except Preempted:  # which all processes raise at the same step
        devices.stop()
        raise
    except TrainingBroken as error:
        devices.stop()
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 3
    except CheckpointError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 4
    devices.stop()
    return 0


def _imagenet_table() -> str:
    from keras_robust.recipes import imagenet

    return imagenet.table()


def imagenet_recipe(name: str) -> "Recipe":
    from keras_robust.recipes import imagenet

    return imagenet.recipe(name)


def smoke(recipe: "Recipe") -> "Recipe":
    """The same recipe in two minutes on a laptop: the family's smallest model, 32 px photo crops, eight steps."""
    from keras_robust.recipes.config import ModelConfig, StartConfig
    from keras_robust.recipes.overrides import override

    name = recipe.model.name
    family = name.split("_")[0]
    if family in SMALL and "isotropic" not in name:
        name = SMALL[family] + ("_convstem" if name.endswith("_convstem") else "")
    small = replace(
        recipe,
        name=f"{recipe.name}_smoke",
        model=ModelConfig(name, normalization=recipe.model.normalization),
        start=StartConfig(),
    )
    return override(small, SMOKE)


def _chosen(recipe: "Recipe", options: argparse.Namespace) -> "Recipe":
    from keras_robust.recipes.overrides import override

    if options.smoke:
        recipe = smoke(recipe)
    assignments = list(options.set)
    if options.model:
        assignments.insert(0, f"model.name={options.model}")
    if options.pixels:
        assignments.insert(1, f"model.pixels={options.pixels}")
    if options.data:
        assignments.insert(0, f"data.source={options.data}")
    if options.validation:
        assignments.insert(0, f"data.validation={options.validation}")
    if options.start:
        assignments.insert(0, f"start.weights={options.start}")
    return override(recipe, assignments)


def _parser(names: tuple[str, ...], command: str, description: str, examples: str) -> CommandParser:
    parser = CommandParser(command, description, examples)
    parser.set_defaults(name=None, names=names)
    if names:
        parser.add_argument("name", metavar="NAME", nargs="?", help="which of the recipes")
        parser.add_argument("--list", action="store_true", help="show all systems, with published accuracy and cost")
    parser.add_argument(
        "--data",
        help='training and validation images: a folder, .tar, .npz, shards, .parquet, photo_crops, "tfds:imagenet2012"',
    )
    parser.add_argument(
        "--model", help="another model: an architecture, applications:NAME, hub:PRESET, or a .keras file of any origin"
    )
    add_pixels(parser)
    parser.add_argument("--validation", help="validation images, where they lie apart from the training images")
    parser.add_argument(
        "--start", help="weights to start from: the folder of a finished run, .keras, .safetensors, .pth"
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the run (runs/ and the recipe's name); the same continues it"
    )
    parser.add_argument(
        "--distribution",
        default="auto",
        metavar="KIND",
        help="devices and processes: auto (default: what the environment offers), single, mirrored, multi_worker, tpu, "
        "data_parallel; see recipes/scaling.md",
    )
    parser.add_argument("--smoke", action="store_true", help="two minutes on a laptop, on photographs")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PART.NAME=VALUE",
        help="e.g. training.epochs=50, attack.eps=8/255",
    )
    parser.add_argument("--show", action="store_true", help="print cost and settings, and train nothing")
    parser.add_backend()
    return parser
