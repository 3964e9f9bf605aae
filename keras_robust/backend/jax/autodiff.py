"""JAX: value_and_grad, jit with the model's variables as arguments, stateless training step."""

import weakref
from contextlib import nullcontext
from functools import partial, wraps
from typing import Any, cast

import jax
import keras
import numpy as np

from keras_robust.backend.seeds import calls_with_fresh_draws, inference_mode
from keras_robust.types import Tensor


def input_gradient(function: Any, x: Tensor) -> Any:
    def total(x: Tensor) -> Any:
        losses, aux = function(x)
        return losses.sum(), (losses, aux)

    (_, (losses, aux)), gradient = jax.value_and_grad(total, has_aux=True)(x)
    return losses, aux, gradient


def frozen_call(layer: Any, trainable: Any, non_trainable: Any) -> Any:
    states = calls_with_fresh_draws(layer, non_trainable)
    mode = inference_mode(layer)
    return lambda x: layer.stateless_call(trainable, states(x), x, **mode)[0]


COMPILES_EACH_SHAPE = True
DIFFERENTIATION = ("jax/_src/api.py", frozenset({"grad", "value_and_grad", "vjp", "jvp", "linearize"}))


def compile(function: Any, model: Any, trace: bool = False) -> Any:
    if not isinstance(model, keras.Layer):
        unbound = partial(function, model if getattr(model, "differentiable", True) else _called_on_host(model))
        return _traced(jax.jit(unbound) if trace else unbound)
    owner = weakref.ref(model)

    @jax.jit
    def traced(trainable: Any, non_trainable: Any, *tensors: Any) -> Any:
        return function(frozen_call(owner(), trainable, non_trainable), *tensors)

    def run(*tensors: Any) -> Any:
        layer = cast(keras.Layer, owner())
        trainable = [variable.value for variable in layer.trainable_variables]
        return traced(trainable, [variable.value for variable in layer.non_trainable_variables], *tensors)

    return run


def _traced(function: Any) -> Any:
    """The function with an error that says what to do where a model leaves JAX."""

    @wraps(function)
    def call(*tensors: Any) -> Any:
        try:
            return function(*tensors)
        except jax.errors.TracerArrayConversionError as error:
            raise ValueError(
                "model must be written in keras.ops or jax.numpy for its gradients: it turns its images into numpy "
                "arrays. Give a black box the attribute differentiable = False and attack it by Square, which needs no "
                "gradients."
            ) from error

    return call


def _called_on_host(model: Any) -> Any:
    """A black box, which takes arrays and not what JAX traces."""
    shapes: dict[tuple, tuple] = {}

    def call(x: Tensor) -> Tensor:
        sides = tuple(x.shape[1:])
        if sides not in shapes:
            with jax.ensure_compile_time_eval():
                shapes[sides] = np.shape(model(np.full((1, *sides), 0.5, "float32")))[1:]
        return on_host(lambda images: np.asarray(model(images), "float32"), x, shapes[sides])

    return call


def gradients_possible() -> Any:
    return nullcontext()


def concurrent_calls() -> Any:
    return 1


def divide_cores(most_calls: Any) -> None:
    pass


def concrete(x: Tensor) -> Any:
    return not isinstance(x, jax.core.Tracer)


def on_host(function: Any, x: Tensor, shape: tuple) -> Any:
    result = jax.ShapeDtypeStruct((x.shape[0], *shape), "float32")
    return jax.pure_callback(lambda x: function(np.asarray(x)), result, x)
