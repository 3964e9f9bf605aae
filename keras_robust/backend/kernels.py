"""Layer normalisation, exact GELU, depthwise convolution: our own where Keras' are slow, else Keras'.

`layer_norm(x, gamma, beta, epsilon)`
    Normalises the last axis of `x` (..., channels); statistics in float32 (at least), result in the dtype of `x`.
`gelu(x)`
    `x * Phi(x)`, exact; dtype of `x`.
`depthwise(x, kernel)`
    Convolution of each channel of `x` (batch, height, width, channels) with its own `kernel` (rows, columns, channels,
    multiplier), odd sides, stride 1, zeros around the map, which keeps its size; dtype of `x`.
"""

import importlib

import keras

_active = importlib.import_module(f"keras_robust.backend.{keras.backend.backend()}.kernels")
depthwise, gelu, layer_norm = _active.depthwise, _active.gelu, _active.layer_norm

__all__ = ["depthwise", "gelu", "layer_norm"]
