"""The models of a training run: written, and read from its checkpoints."""

from contextlib import nullcontext
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_robust import models
from keras_robust.files import read_json, written_aside
from keras_robust.recipes import checkpoints
from keras_robust.recipes.build import build_model, build_trainer
from keras_robust.recipes.config import Recipe

CLASS_NAMES = "class_names.json"


def save_model(model: Any, path: Any) -> None:
    """Saves a .keras file, whole or not at all."""
    with written_aside(path) as aside:
        model.save(aside)


def best_weights(trainer: Any, checkpoint: Any) -> Any:
    """The context in which a trainer restored from a scored checkpoint has the better of raw and averaged weights."""
    entry = checkpoint.info["history"][-1]
    name = "robust_accuracy" if trainer.attacks else "accuracy"
    averaged = entry.get(f"ema_{name}")
    if averaged is not None and averaged >= entry[f"val_{name}"]:
        return trainer.averaged_weights()
    return nullcontext()


def class_names_of_run(folder: str | PathLike | None) -> tuple[str, ...] | None:
    """The names of the classes that a run was trained on; None of what is no run's folder."""
    path = None if folder is None else Path(folder) / CLASS_NAMES
    if path is None or not path.is_file():
        return None
    names = read_json(path)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} must hold a list of names.")
    return tuple(names)


def load_run(folder: Any, which: str = "best") -> Any:
    """The model of a training run, finished or not, from its checkpoints.

    Args:
        folder: of the run, as given to `train`.
        which: "best": the better of raw and averaged weights at the highest robust accuracy; "last": the latest
            weights; "ema": the latest averages.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: no such run, or it has nothing of the kind yet.

    Example:
        >>> model = kr.recipes.load_run("runs/mine")  # of a run of hours  # doctest: +SKIP
    """
    folder = Path(folder)
    if which not in ("best", "last", "ema"):
        raise ValueError(f"which must be 'best', 'last' or 'ema'; received {which!r}.")
    if not (folder / "recipe.json").is_file():
        raise ValueError(f"folder must be that of a training run, with a recipe.json; received {str(folder)!r}.")
    recipe = Recipe.load(folder / "recipe.json")
    kept = checkpoints.CheckpointFolder(folder / "checkpoints")
    latest = kept.latest(lambda c: c.info.get("fingerprint") == recipe.fingerprint())
    checkpoint = kept.best() if which == "best" else latest and latest[0]
    if checkpoint is None:
        raise ValueError(f"{folder} has no checkpoint for which={which!r} yet.")
    arrays = checkpoints.read(checkpoint.path)
    num_classes = checkpoint.info["num_classes"]
    bare = replace(recipe, start=type(recipe.start)())
    trainer = build_trainer(bare, build_model(bare, num_classes), bare.training.accumulate)
    checkpoints.restore(trainer, arrays, checkpoint.path)
    if which == "best":
        context = best_weights(trainer, checkpoint)
    elif which == "ema":
        context = trainer.averaged_weights()
    else:
        context = nullcontext()
    with context:
        values = [np.array(keras.ops.convert_to_numpy(weight)) for weight in trainer.model.weights]
    for weight, value in zip(trainer.model.weights, values):
        weight.assign(value)
    names = class_names_of_run(folder)
    if names is not None and len(names) == num_classes:
        models.set_class_names(trainer.model, names)
    return trainer.model
