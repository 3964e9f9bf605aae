"""Training runs as data, and what runs them."""

from keras_robust.recipes import overrides
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
from keras_robust.recipes.load_run import load_run
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
    "load_run",
    "overrides",
    "train",
]
