"""Adversarial training inside `model.fit`."""

from keras_robust.training.adversarial import AdversarialModel
from keras_robust.training.callbacks import AdversarialTensorBoard

__all__ = ["AdversarialModel", "AdversarialTensorBoard"]
