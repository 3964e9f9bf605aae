"""Adversarial training inside `model.fit`: a Keras model, its objectives, optimizer, schedules and TensorBoard."""

from keras_robust.training import distribution
from keras_robust.training.adversarial_model import AdversarialModel
from keras_robust.training.objectives import MART, TRADES, AdversarialCrossEntropy
from keras_robust.training.optimizer import adamw, undecayed
from keras_robust.training.schedules import WarmupCosine, WarmupPolynomial
from keras_robust.training.tensorboard import AdversarialTensorBoard

__all__ = [
    "MART",
    "TRADES",
    "AdversarialCrossEntropy",
    "AdversarialModel",
    "AdversarialTensorBoard",
    "WarmupCosine",
    "WarmupPolynomial",
    "adamw",
    "distribution",
    "undecayed",
]
