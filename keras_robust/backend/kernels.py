"""Layer normalisation and exact GELU: of our own where Keras' are slow, Keras' where they are not.

`layer_norm(x, gamma, beta, epsilon)`
    Normalises the last axis of `x` (..., channels); statistics in float32 (at least), result in the dtype of `x`.
`gelu(x)`
    `x * Phi(x)`, exact; dtype of `x`.
"""

import importlib

import keras

_active = importlib.import_module(f"keras_robust.backend.{keras.backend.backend()}.kernels")
gelu, layer_norm = _active.gelu, _active.layer_norm

__all__ = ["gelu", "layer_norm"]
