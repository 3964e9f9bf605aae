"""Adversarial training: inside `model.fit`, and of whole recipes."""

from keras_robust.training import distribution, settings
from keras_robust.training.adversarial import AdversarialModel
from keras_robust.training.callbacks import AdversarialTensorBoard
from keras_robust.training.checkpoints import CheckpointError
from keras_robust.training.guards import Preempted, TrainingBroken
from keras_robust.training.models import load_run
from keras_robust.training.objectives import MART, TRADES, Standard
from keras_robust.training.optimizer import adamw, undecayed
from keras_robust.training.recipe import (
    AttackPart,
    CheckpointPart,
    DataPart,
    EvaluationPart,
    GuardPart,
    ModelPart,
    Recipe,
    StartPart,
    TrainingPart,
)
from keras_robust.training.run import train
from keras_robust.training.schedules import WarmupCosine

__all__ = [
    "MART",
    "TRADES",
    "AdversarialModel",
    "AdversarialTensorBoard",
    "AttackPart",
    "CheckpointError",
    "CheckpointPart",
    "DataPart",
    "EvaluationPart",
    "GuardPart",
    "ModelPart",
    "Preempted",
    "Recipe",
    "Standard",
    "StartPart",
    "TrainingBroken",
    "TrainingPart",
    "WarmupCosine",
    "adamw",
    "distribution",
    "load_run",
    "settings",
    "train",
    "undecayed",
]
