"""Training runs as data, and what runs them."""

from typing import TYPE_CHECKING

from keras_robust.lazy import lazy_attributes

if TYPE_CHECKING:
    from keras_robust.recipes import cost, imagenet, overrides
    from keras_robust.recipes.checkpoints import CheckpointError
    from keras_robust.recipes.config import (
        AttackConfig,
        CheckpointConfig,
        DataConfig,
        EvaluationConfig,
        GuardConfig,
        ModelConfig,
        Recipe,
        StartConfig,
        TrainingConfig,
    )
    from keras_robust.recipes.guards import Preempted, TrainingBroken
    from keras_robust.recipes.run_models import load_run
    from keras_robust.recipes.runner import train

__all__ = [
    "AttackConfig",
    "CheckpointConfig",
    "CheckpointError",
    "DataConfig",
    "EvaluationConfig",
    "GuardConfig",
    "ModelConfig",
    "Preempted",
    "Recipe",
    "StartConfig",
    "TrainingBroken",
    "TrainingConfig",
    "cost",
    "imagenet",
    "load_run",
    "overrides",
    "train",
]

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "keras_robust.recipes.checkpoints": ("CheckpointError",),
        "keras_robust.recipes.config": (
            "AttackConfig",
            "CheckpointConfig",
            "DataConfig",
            "EvaluationConfig",
            "GuardConfig",
            "ModelConfig",
            "Recipe",
            "StartConfig",
            "TrainingConfig",
        ),
        "keras_robust.recipes.guards": ("Preempted", "TrainingBroken"),
        "keras_robust.recipes.run_models": ("load_run",),
        "keras_robust.recipes.runner": ("train",),
    },
    ("cost", "imagenet", "overrides"),
)
