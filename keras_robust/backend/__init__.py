"""What keras.ops does not offer: differentiate with respect to images, compile, and hook into Keras' training step.

The module of the active Keras backend is the only one that is imported. Each one defines:

`input_gradient(function, x)`
    `function(x)` returns (losses (batch,), aux); returns (losses, aux, gradient of the sum of the losses at x).
`compile(function, model, trace=False)`
    A callable of tensors that runs `function(frozen, *tensors)`, where `frozen(images)` gives the logits of `model` in
    inference mode, weights and states constant. Keras models are compiled once per input shape where the backend
    compiles; other callables run as they are, unless `trace` says that they can be compiled (which makes constants of
    what they refer to).
`COMPILES_EACH_SHAPE`
    Whether another batch size is another compilation.
`concurrent_calls()`
    How many calls of compiled functions, from as many threads, use this machine best.
`divide_cores(most_calls)`
    Before anything is computed: from now on up to so many such calls share the cores, each with its part of them.
`concrete(x)`
    Whether a tensor holds values now, rather than standing for those of a compiled function.
`on_host(function, x, width)`
    `function`, from a numpy array (n, ...) to a float32 one (n, width), inside of what is compiled; no gradient.
`example_index(count)`
    The positions in the global batch of the `count` examples at hand, int32 (count,): on TensorFlow each device sees
    its own part of the batch.
`TrainStep`
    A mixin before `keras.Model` with the backend's `train_step` and `test_step`, which call
    `self.attack_batch(frozen, step, data)` and `self.measure(frozen, data)`.
"""

import importlib

import keras

if keras.backend.backend() not in ("tensorflow", "jax", "torch"):
    raise ImportError(
        "keras_robust runs on the Keras backends tensorflow, jax and torch; "
        f"KERAS_BACKEND is {keras.backend.backend()!r}."
    )

active = importlib.import_module(f"keras_robust.backend.{keras.backend.backend()}.autodiff")
_trainer = importlib.import_module(f"keras_robust.backend.{keras.backend.backend()}.trainer")
compile, input_gradient = active.compile, active.input_gradient
COMPILES_EACH_SHAPE = active.COMPILES_EACH_SHAPE
concurrent_calls, divide_cores = active.concurrent_calls, active.divide_cores
concrete, on_host = active.concrete, active.on_host
TrainStep, example_index = _trainer.TrainStep, _trainer.example_index

# What only one backend has is reached through `active`.
__all__ = [
    "COMPILES_EACH_SHAPE",
    "TrainStep",
    "active",
    "compile",
    "concrete",
    "concurrent_calls",
    "divide_cores",
    "example_index",
    "input_gradient",
    "on_host",
]
