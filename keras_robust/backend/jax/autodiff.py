"""JAX: value_and_grad, jit with the model's variables as arguments, stateless training step."""

import weakref

import jax
import keras
import numpy as np

from keras_robust.backend.seeds import calls_with_fresh_draws


def input_gradient(function, x):
    def total(x):
        losses, aux = function(x)
        return losses.sum(), (losses, aux)

    (_, (losses, aux)), gradient = jax.value_and_grad(total, has_aux=True)(x)
    return losses, aux, gradient


def frozen_call(layer, trainable, non_trainable):
    states = calls_with_fresh_draws(layer, non_trainable)
    return lambda x: layer.stateless_call(trainable, states(x), x, training=False)[0]


COMPILES_EACH_SHAPE = True


def compile(function, model, trace=False):
    if not isinstance(model, keras.Layer):
        run = lambda *tensors: function(model, *tensors)  # noqa: E731
        return jax.jit(run) if trace else run
    owner = weakref.ref(model)

    @jax.jit
    def traced(trainable, non_trainable, *tensors):
        return function(frozen_call(owner(), trainable, non_trainable), *tensors)

    def run(*tensors):
        layer = owner()
        trainable = [variable.value for variable in layer.trainable_variables]
        return traced(trainable, [variable.value for variable in layer.non_trainable_variables], *tensors)

    return run


def concurrent_calls():
    return 1


def divide_cores(most_calls):
    pass


def concrete(x):
    return not isinstance(x, jax.core.Tracer)


def on_host(function, x, width):
    result = jax.ShapeDtypeStruct((x.shape[0], width), "float32")
    return jax.pure_callback(lambda x: function(np.asarray(x)), result, x)
