"""What models spend their time in: our own where Keras' is slow, else Keras'.

`layer_norm(x, gamma, beta, epsilon)`
    Normalises the last axis of `x` (..., channels); statistics in float32 (at least), result in the dtype of `x`.
`gelu(x)`
    `x * Phi(x)`, exact; dtype of `x`.
`convolution(x, kernel, strides, margin, dilation)`
    Convolution of `x` (batch, height, width, channels) with `kernel` (rows, columns, channels per group, filters) and
    `margin` zeros on each of the four sides; strides and dilation are pairs; dtype of `x`.
`depthwise(x, kernel)`
    Convolution of each channel of `x` (batch, height, width, channels) with its own `kernel` (rows, columns, channels,
    multiplier), odd sides, stride 1, zeros around the map, which keeps its size; dtype of `x`.
`attention(q, k, v)`
    Means of `v` (batch, tokens, heads, channels of a head), weighted by softmax(q k / sqrt(channels)); softmax in
    float32 (at least), result in the dtype of `v`.
`softmax(x)`
    Softmax over the last axis, in float32 (at least); dtype of `x`. The same on all backends.
"""

import importlib

import keras

from keras_robust.backend.keras_kernels import softmax

_active = importlib.import_module(f"keras_robust.backend.{keras.backend.backend()}.kernels")
attention, convolution, depthwise = _active.attention, _active.convolution, _active.depthwise
gelu, layer_norm = _active.gelu, _active.layer_norm

__all__ = ["attention", "convolution", "depthwise", "gelu", "layer_norm", "softmax"]
