"""Building of the objects that train a recipe: model, attacks, trainer."""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_robust import attacks, models, weights
from keras_robust.backend import keras_private
from keras_robust.recipes.config import Recipe
from keras_robust.threat import ThreatModel
from keras_robust.training.adversarial_model import AdversarialModel
from keras_robust.training.objectives import OBJECTIVES
from keras_robust.training.optimizer import adamw
from keras_robust.training.schedules import WarmupCosine, default_warmup

BEST = "best.keras"
ROLLBACK_STRIDE = 7919


def seed_of(recipe: Recipe, rollbacks: int = 0) -> int:
    """The seed of all random draws: another one after each rollback, which would else repeat what broke."""
    return (recipe.training.seed + ROLLBACK_STRIDE * rollbacks) % 2**31


@contextmanager
def _policy_and_seed(precision: str, seed: int) -> Iterator[None]:
    """Global dtype policy and random seeds of Keras; policy, Python's and numpy's random states are put back."""
    policy, python, numpy = keras.config.dtype_policy(), random.getstate(), np.random.get_state()  # noqa: NPY002
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def build_model(recipe: Recipe, num_classes: int) -> keras.Model:
    """The model of a recipe, in its precision, with the weights that it starts from."""
    with _policy_and_seed(recipe.training.precision, recipe.training.seed):
        return _build_model(recipe, num_classes)


def _build_model(recipe: Recipe, num_classes: int) -> keras.Model:
    part, start = recipe.model, recipe.start
    if models.is_foreign(part.name):
        model = models.adapted(part.name, num_classes, part.pixels, start.weights is None, "head" in start.new)
    else:
        model = _created(recipe, num_classes)
    if start.weights is not None:
        path = Path(start.weights)
        if path.is_dir():
            path = path / BEST
            if not path.is_file():
                raise ValueError(f"start.weights must be the folder of a finished run, with {BEST}; received {path}.")
        stem, head = ("skip" if part in start.new else None for part in ("stem", "head"))
        weights.load(model, path, head, stem)
    if start.train_only is not None:
        for layer in model.layers:
            layer.trainable = layer.name == start.train_only
    return model


def _created(recipe: Recipe, num_classes: int) -> keras.Model:
    part = recipe.model
    row = models.architecture(part.name)
    size = math.ceil(recipe.data.resolution_at(recipe.training.epochs) / row.multiple_of) * row.multiple_of
    return models.create(
        part.name,
        num_classes,
        max(size, row.min_size),
        part.drop_path_rate,
        part.normalization,
        part.layer_scale_init,
    )


def build_attacks(recipe: Recipe) -> list[attacks.Attack]:
    """The attacks of a recipe, one for each norm; none for clean training."""
    part = recipe.attack
    makers = {
        "apgd": lambda threat: attacks.APGD(threat, n_iter=part.n_iter, seed=recipe.training.seed),
        "pgd": lambda threat: attacks.PGD(
            threat, n_iter=part.n_iter, random_start=True, returns="last", seed=recipe.training.seed
        ),
        "fgsm": lambda threat: attacks.FGSM(threat, returns="last"),
        "fgsm-rs": lambda threat: attacks.FGSM(threat, random_start=True, returns="last", seed=recipe.training.seed),
        "n-fgsm": lambda threat: attacks.NFGSM(threat, seed=recipe.training.seed),
    }
    if part.kind == "none":
        return []
    return [makers[part.kind](ThreatModel(norm, eps)) for norm, eps in zip(part.norms, part.eps)]


def build_validation_attack(recipe: Recipe) -> attacks.Attack:
    """Multi-step APGD under the first threat model of the recipe, from random starts."""
    threat = ThreatModel(recipe.attack.norms[0], recipe.attack.eps[0])
    return attacks.APGD(threat, n_iter=recipe.evaluation.n_iter, random_start=True, returns="misclassified")


def build_trainer(
    recipe: Recipe,
    model: keras.Model,
    micro_batches: int,
    augmentation: Callable | None = None,
    rollbacks: int = 0,
) -> AdversarialModel:
    """The compiled `AdversarialModel` of a recipe whose epochs have `micro_batches` steps."""
    part = recipe.training
    updates = micro_batches // part.accumulate
    options: dict[str, Any] = {} if part.beta is None else {"beta": part.beta}
    objective = OBJECTIVES[part.objective](**options)
    trainer = AdversarialModel(
        model,
        build_attacks(recipe) or None,
        validation_attack=build_validation_attack(recipe),
        eps_warmup_steps=round(recipe.attack.eps_warmup_epochs * updates),
        objective=objective,
        augmentation=augmentation,
        ema_decay=part.ema_decay,
        diagnostics=True,
        seed=seed_of(recipe, rollbacks),
        name="trainer",  # not numbered, so that checkpoints of all sessions name their variables alike
    )
    slower = 0.5**rollbacks
    schedule = WarmupCosine(
        part.learning_rate * slower,
        part.epochs,
        updates,
        default_warmup(part.epochs) if part.warmup_epochs is None else part.warmup_epochs,
        final=part.final_learning_rate * slower,
    )
    trainer.compile(
        adamw(model, schedule, part.weight_decay, part.betas, part.epsilon, part.accumulate),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    # Built before the first step, so that a run that goes on within an epoch can give its metrics back.
    logits = keras.KerasTensor((1, model.output_shape[-1]))
    keras_private.build_loss_and_metrics(trainer, logits, logits)
    return trainer
