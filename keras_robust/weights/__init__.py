"""Weights of PyTorch and Keras models: into a model and out of it."""

from keras_robust.weights.fetching import fetch, is_cached, sha256_of
from keras_robust.weights.loading import load
from keras_robust.weights.saving import save

__all__ = ["fetch", "is_cached", "load", "save", "sha256_of"]
