"""Adversarial training: inside `model.fit`, and of whole recipes."""

from keras_robust.training.adversarial import AdversarialModel
from keras_robust.training.callbacks import AdversarialTensorBoard
from keras_robust.training.objectives import MART, TRADES, Standard
from keras_robust.training.optimizer import adamw, undecayed
from keras_robust.training.schedules import WarmupCosine

__all__ = [
    "MART",
    "TRADES",
    "AdversarialModel",
    "AdversarialTensorBoard",
    "Standard",
    "WarmupCosine",
    "adamw",
    "undecayed",
]
