"""The one command line of all recipes."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from keras_robust.recipes import cost, overrides
from keras_robust.recipes.checkpoints import CheckpointError
from keras_robust.recipes.config import ModelConfig, StartConfig
from keras_robust.recipes.guards import Preempted, TrainingBroken
from keras_robust.recipes.runner import train
from keras_robust.training import distribution

SMALL = {"convnext": "convnext_atto", "vit": "vit_tiny"}
SMOKE = (
    "data.source=photo_crops",
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


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: {message}\n")


def main(recipe, documentation, arguments=None):
    """Trains a recipe as the command line says; what every script in `recipes/` calls.

    Args:
        recipe: the `Recipe`, or a dict of several, one of which the first argument names.
        documentation: of the script.
        arguments: of the command line; those of the process if not given.

    Ends the process with code 2 where the settings do not make sense, 3 where training broke, 4 where a checkpoint
    could not be written, 75 where the process was told to end and can be started again.
    """
    recipes = recipe if isinstance(recipe, dict) else {None: recipe}
    parser = _parser(recipes, documentation)
    options = parser.parse_args(arguments)
    try:
        recipe = _chosen(recipes[options.variant], options)
        # Before the cost, for which a model is built: devices are divided before anything is computed.
        devices = None if options.show else distribution.start(options.distribution)
        if devices is None or devices.writes:
            print(f"{recipe.name}: {cost.describe(recipe)}", flush=True)
        if options.show:
            print(recipe.to_json(), end="")
            return
        if not options.smoke:
            for warning in recipe.warns:
                print(f"warning: {warning}", file=sys.stderr, flush=True)
        try:
            train(recipe, options.out or Path("runs") / recipe.name, distribution=devices)
        except (Preempted, TrainingBroken):  # which all processes raise at the same step
            devices.stop()
            raise
        devices.stop()
    except (ValueError, FileNotFoundError, ImportError) as error:
        parser.error(str(error))
    except TrainingBroken as error:
        parser.exit(3, f"{parser.prog}: {error}\n")
    except CheckpointError as error:
        parser.exit(4, f"{parser.prog}: {error}\n")


def smoke(recipe):
    """The same recipe in two minutes on a laptop: the family's smallest model, 32 px photo crops, eight steps."""
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
    return overrides.override(small, SMOKE)


def _chosen(recipe, options):
    if options.smoke:
        recipe = smoke(recipe)
    assignments = list(options.set)
    if options.data:
        assignments.insert(0, f"data.source={options.data}")
    if options.start:
        assignments.insert(0, f"start.weights={options.start}")
    return overrides.override(recipe, assignments)


def _parser(recipes, documentation):
    parser = Parser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(variant=None)
    if None not in recipes:
        parser.add_argument("variant", choices=recipes, help="which of the recipes")
    parser.add_argument(
        "--data", help='training and validation images: a folder, a .tar, an .npz, photo_crops, "tfds:imagenet2012"'
    )
    parser.add_argument(
        "--start", help="weights to start from: the folder of a finished run, .keras, .safetensors, .pth"
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the run (runs/ and the recipe's name); the same continues it"
    )
    parser.add_argument(
        "--distribution",
        choices=distribution.KINDS,
        default="auto",
        help="devices and processes to train on (auto: what the environment offers; recipes/scaling.md)",
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
    return parser
