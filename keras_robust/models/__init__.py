"""Classifiers, by name."""

from keras_robust.models.registry import architecture, create, names

__all__ = ["architecture", "create", "names"]
