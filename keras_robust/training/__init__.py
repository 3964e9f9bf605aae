"""Adversarial training inside `model.fit`."""

from keras_robust.training.adversarial import AdversarialModel

__all__ = ["AdversarialModel"]
