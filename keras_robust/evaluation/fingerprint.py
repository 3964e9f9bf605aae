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
        logits: its answers to `probes`, (n, classes): its classes count, and of models that show no configuration, as
            subclassed ones and functions, the logits to three digits.
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


def probes(resolution: int, channels: int) -> np.ndarray:
    """Images that tell functions apart, float32 (32, resolution, resolution, channels): noise, and flat ones."""
    noise = np.random.default_rng(0).uniform(size=(16, resolution, resolution, channels))
    flat = np.random.default_rng(1).uniform(size=(16, 1, 1, channels)) + np.zeros_like(noise)
    return np.concatenate([noise, flat]).astype(np.float32)


def _configuration(model: Any) -> str | None:
    """The configuration as text, with places instead of names; None for a model that has none."""
    if not isinstance(model, keras.Model):
        return None
    if not isinstance(model, keras.Sequential) and not hasattr(model, "operations"):
        return None  # subclassed: its `call` is code, which no configuration shows
    content = keras.saving.serialize_keras_object(model)
    text = json.dumps(content, sort_keys=True, default=str)
    for place, name in enumerate(dict.fromkeys(_names(content))):
        text = text.replace(f'"{name}"', f'"#{place}"')
    return text


def _names(content: Any) -> Iterator[str]:
    """The names of all layers of a configuration; a policy of number formats is what it is called."""
    if isinstance(content, dict):
        config = content.get("config")
        if isinstance(config, dict) and "name" in config and "Policy" not in content.get("class_name", ""):
            yield str(config["name"])
        for value in content.values():
            yield from _names(value)
    elif isinstance(content, (list, tuple)):
        for value in content:
            yield from _names(value)
