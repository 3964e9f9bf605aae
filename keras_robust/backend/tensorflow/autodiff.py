"""TensorFlow: GradientTape, tf.function, stateful training step."""

import contextlib
import os
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import keras
import tensorflow as tf

from keras_robust.machine import available_cores
from keras_robust.types import Tensor


def input_gradient(function: Callable, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = tf.convert_to_tensor(x)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        losses, aux = function(x)
    return losses, aux, tape.gradient(losses, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)


# The graph of a model's forward pass, of which all attacks on the model are built: most of a compilation is tracing it.
_forward: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


COMPILES_EACH_SHAPE = False
DIFFERENTIATION = ("tensorflow/python/eager/backprop.py", frozenset({"gradient", "jacobian", "batch_jacobian"}))
THREADS = "TF_NUM_INTEROP_THREADS"  # which TensorFlow reads


def compile(function: Callable, model: Callable | keras.Layer, trace: bool = False) -> Callable:
    if isinstance(model, keras.Layer):
        if model not in _forward:
            owner = weakref.ref(model)
            _forward[model] = tf.function(lambda x: owner()(x, training=False), autograph=False)  # type: ignore[misc]
        frozen = _forward[model]
    elif trace:
        frozen = model
    else:
        return lambda *tensors: function(model, *tensors)
    compiled = tf.function(lambda *tensors: function(frozen, *tensors), autograph=False)
    open_shape = getattr(model, "input_shape", None)

    def run(images: Tensor, *tensors: Any) -> Any:
        # What the model leaves open, batch, height or width, stays open in the graph, which then serves every batch
        # and every resolution.
        sizes = tuple(images.shape)
        model_shape = (
            open_shape if isinstance(open_shape, tuple) and len(open_shape) == len(sizes) else (None, *sizes[1:])
        )
        opened = [None if free is None else known for free, known in zip(model_shape, sizes)]

        def spec(tensor: Tensor) -> Tensor:
            shape = list(tensor.shape)
            if shape == list(sizes):
                shape = opened
            elif shape[:1] == [sizes[0]]:
                shape[0] = opened[0]
            return tf.TensorSpec(shape, tensor.dtype)

        return compiled.get_concrete_function(*map(spec, (images, *tensors)))(images, *tensors)

    return run


def gradients_possible() -> Any:
    return nullcontext()


def concurrent_calls() -> int:
    """The cores of a CPU: small operations gain nothing from being divided among them."""
    return 1 if len(tf.config.list_logical_devices()) > 1 else min(available_cores(), _threads())


def divide_cores(most_calls: int) -> None:
    calls = min(most_calls, available_cores(), _threads())
    if calls > 1 and len(tf.config.list_physical_devices()) == 1 and "TF_NUM_INTRAOP_THREADS" not in os.environ:
        with contextlib.suppress(RuntimeError):  # TensorFlow has started
            tf.config.threading.set_intra_op_parallelism_threads(available_cores() // calls)


def _threads() -> int:
    """How many functions TensorFlow runs at a time: as its user has said, else as many as there are cores."""
    set_by_code, set_by_user = tf.config.threading.get_inter_op_parallelism_threads(), os.environ.get(THREADS, "")
    return set_by_code or (int(set_by_user) if set_by_user.isdecimal() else 0) or available_cores()


def concrete(x: Tensor) -> bool:
    return not tf.is_tensor(x) or hasattr(x, "numpy")


def on_host(function: Any, x: Tensor, shape: tuple) -> Any:
    return tf.ensure_shape(tf.numpy_function(function, [x], tf.float32), (x.shape[0], *shape))


def saved_function_is_differentiable(function: Any, logits: Tensor) -> Any:
    """Whether the logits of a function of a SavedModel, from images to logits, have a gradient in the images.

    Where another output of the function has one, TensorFlow gives zeros instead of none for the logits: an attack's
    check for zero gradients then finds out.

    Args:
        function: as it was loaded.
        logits: from what the function returns to the logits.

    Raises:
        ValueError: the function takes no images.
    """
    concrete = next(iter(getattr(function, "concrete_functions", [function])), None)
    arguments = tf.nest.flatten(concrete.structured_input_signature) if concrete is not None else []
    images = next((argument for argument in arguments if isinstance(argument, tf.TensorSpec)), None)
    if images is None:
        raise ValueError("it has no signature that takes images.")

    @tf.function(autograph=False)
    def gradient(x: Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = logits(function(x))
        return tape.gradient(outputs, x)

    try:
        return gradient.get_concrete_function(tf.TensorSpec(images.shape, images.dtype)).structured_outputs is not None
    except LookupError:  # an operation without a registered gradient
        return False
