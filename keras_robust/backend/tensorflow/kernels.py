"""TensorFlow: layer normalisation and exact GELU whose gradients are written by hand.

TensorFlow runs an expression op by op, each a pass over memory, and derives the gradient of each op by itself. Written
as a whole, a gradient needs about half as many passes. Unused gradients (those of the weights while images are under
attack) cost nothing inside `tf.function`, which drops ops without a consumer.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from keras import ops

from keras_robust.backend.keras_kernels import attention, convolution
from keras_robust.types import Tensor

__all__ = ["attention", "convolution", "depthwise", "gelu", "layer_norm", "usual_forms"]

_usual_form = contextvars.ContextVar("usual_form", default=False)


@contextlib.contextmanager
def usual_forms() -> Iterator[Any]:
    """While active, `gelu` is traced in the form by which converters to other formats know it: LiteRT has no erf."""
    token = _usual_form.set(True)
    try:
        yield
    finally:
        _usual_form.reset(token)


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Tensor:
    """Normalise the last axis; statistics in float32 (at least), result in the dtype of `x`.

    `x`: (..., channels). `gamma`, `beta`: (channels,).
    """
    dtype = x.dtype
    if dtype.size < 4:
        x = tf.cast(x, tf.float32)
    return tf.cast(
        _layer_norm(x, tf.cast(gamma, x.dtype), tf.cast(beta, x.dtype), tf.constant(epsilon, x.dtype)), dtype
    )


@tf.custom_gradient
def _layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: Tensor) -> tuple[Tensor, Callable]:
    centred = x - _mean(x)
    scale = tf.math.rsqrt(_mean(tf.square(centred)) + epsilon)
    normed = centred * scale

    def gradient(upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        by_normed = upstream * gamma
        by_x = by_normed - _mean(by_normed) - normed * _mean(by_normed * normed)
        rows = list(range(upstream.shape.rank - 1))
        return by_x * scale, tf.reduce_sum(upstream * normed, rows), tf.reduce_sum(upstream, rows), None

    return normed * gamma + beta, gradient


def _mean(x: Tensor) -> Tensor:
    return tf.reduce_mean(x, axis=-1, keepdims=True)


def gelu(x: Tensor) -> Tensor:
    """`x * Phi(x)`, computed in float32 (at least); result in the dtype of `x`."""
    dtype = x.dtype
    if dtype.size < 4:
        x = tf.cast(x, tf.float32)
    return tf.cast(tf.nn.gelu(x) if _usual_form.get() else _gelu(x), dtype)


@tf.custom_gradient
def _gelu(x: Tensor) -> tuple[Tensor, Callable]:
    scaled = x * math.sqrt(0.5)
    # Not erfc, the more accurate one far below zero: TensorFlow takes twice the time for it, and PyTorch has erf too.
    phi = 0.5 * (1.0 + tf.math.erf(scaled))

    def gradient(upstream: Tensor) -> Tensor:
        # Square, negate and exponentiate run as one pass, scaling beforehand would be another.
        density = tf.exp(-tf.square(scaled)) * scaled * (1.0 / math.sqrt(math.pi))
        return upstream * (phi + density)

    return phi * x, gradient


def depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    return ops.depthwise_conv(x, kernel, strides=1, padding="same", data_format="channels_last")
