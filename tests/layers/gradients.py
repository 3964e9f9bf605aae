"""Gradients of a layer by whatever the active backend differentiates with."""

import keras
import numpy as np


def value_and_gradients(function, *arrays):
    """`function(*arrays)` as float64 numpy, and the gradients of its sum weighted by `weighting(shape)`.

    The weights make the upstream gradient of each element another one.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tensors = [tf.constant(array) for array in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            y = function(*tensors)
            total = tf.reduce_sum(tf.cast(y, "float32") * weighting(y.shape))
        gradients = tape.gradient(total, tensors)
    elif backend == "jax":
        import jax

        def total(*tensors):
            y = function(*tensors)
            return (y.astype("float32") * weighting(y.shape)).sum(), y

        tensors = [keras.ops.convert_to_tensor(array) for array in arrays]
        (_, y), gradients = jax.value_and_grad(total, range(len(arrays)), has_aux=True)(*tensors)
    else:
        import torch

        tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
        y = function(*tensors)
        total = (y.float() * torch.tensor(weighting(y.shape))).sum()
        gradients = torch.autograd.grad(total, tensors)
    return [np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(t, "float32")), "float64") for t in (y, *gradients)]


def weighting(shape):
    return np.random.default_rng(7).normal(size=tuple(shape)).astype("float32")


def expected_by_torch(function, *arrays):
    """The same as `value_and_gradients`, by PyTorch in float64."""
    import torch

    tensors = [torch.tensor(np.asarray(array, "float64"), requires_grad=True) for array in arrays]
    y = function(*tensors)
    gradients = torch.autograd.grad((y * torch.tensor(weighting(y.shape)).double()).sum(), tensors)
    return [t.detach().numpy() for t in (y, *gradients)]
