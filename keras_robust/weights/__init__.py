"""Weights of PyTorch and Keras models: into a model and out of it."""

from keras_robust.weights.fetching import fetch, is_cached, sha256_of
from keras_robust.weights.loading import architecture_name, load, normalization_of
from keras_robust.weights.saving import save

__all__ = ["architecture_name", "fetch", "is_cached", "load", "normalization_of", "save", "sha256_of"]
