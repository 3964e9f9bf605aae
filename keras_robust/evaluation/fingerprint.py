"""Fingerprint of a model: a hash of what it computes, by which a stored evaluation knows its model again."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


def fingerprint(model: Any, logits: np.ndarray) -> str:
    """A hash of the whole function: weights, configuration and answers.

    A corrected normalisation or activation is another function, though the weights are the same. Names of layers do not
    count, which Keras numbers anew for each model of a program.

    Args:
        model: a model; an attribute `sha256`, such as that of its file, goes before all else.
        logits: its answers to some images, (n, classes): its classes count, and of models that show no configuration,
            as subclassed ones and functions, the logits to three digits.
    """
    given = getattr(model, "sha256", None)
    if given is not None:
        return given
    digest = hashlib.sha256()
    for weight in (getattr(model, "weights", None) and model.get_weights()) or ():
        digest.update(f"{weight.shape}{weight.dtype}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    configuration = _configuration(model)
    digest.update((configuration or "").encode())
    digest.update(logits.argmax(1).astype("<i8").tobytes())
    if configuration is None:
        scale = max(float(np.abs(np.nan_to_num(logits)).max()), np.finfo(np.float32).tiny)
        digest.update((np.round(np.nan_to_num(logits) / scale, 3) + 0.0).astype("<f4").tobytes())
    return digest.hexdigest()


def _configuration(model: Any) -> str | None:
    """The configuration as text, with places instead of names; None for a model that has none."""
    if not isinstance(model, keras.Model):
        return None
    try:
        text = json.dumps(keras.saving.serialize_keras_object(model), sort_keys=True, default=str)
    except (NotImplementedError, TypeError, ValueError):
        return None
    if not isinstance(model, keras.Sequential) and not hasattr(model, "operations"):
        return None  # subclassed: its `call` is code, which no configuration shows
    for place, name in enumerate(dict.fromkeys(_names(model))):
        text = text.replace(f'"{name}"', f'"#{place}"')
    return text


def _names(model: keras.Model) -> Iterator[str]:
    yield model.name
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _names(layer)
        else:
            yield layer.name
