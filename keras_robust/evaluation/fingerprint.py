"""Fingerprint of a model: a hash of what it computes, by which a stored evaluation knows its model again."""

import hashlib
from typing import Any

import numpy as np


def fingerprint(model: Any, predictions: np.ndarray) -> str:
    """A hash of the model's weights or, where it shows none, of its answers to the first images.

    Args:
        model: a model; an attribute `sha256`, such as that of its file, goes before all else.
        predictions: its answers.
    """
    given = getattr(model, "sha256", None)
    if given is not None:
        return given
    digest = hashlib.sha256()
    weights = getattr(model, "weights", None)
    for value in (weights and model.get_weights()) or [np.asarray(predictions)]:
        digest.update(f"{value.shape}{value.dtype}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()
