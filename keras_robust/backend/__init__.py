"""Backends: what keras.ops does not offer, gradients in the images, compilation, and hooks into Keras' training step.

There is a folder for each framework, all with the same modules: `autodiff`, `trainer`, `distribution`, `kernels`; that
of the active Keras backend is the only one that is imported. `protocol` says what they offer.
"""

import importlib
from typing import Any

import keras

if keras.backend.backend() not in ("tensorflow", "jax", "torch"):
    raise ImportError(
        "keras_robust runs on the Keras backends tensorflow, jax and torch; "
        f"KERAS_BACKEND is {keras.backend.backend()!r}."
    )

active: Any = importlib.import_module(f"keras_robust.backend.{keras.backend.backend()}.autodiff")
_trainer = importlib.import_module(f"keras_robust.backend.{keras.backend.backend()}.trainer")
compile, input_gradient = active.compile, active.input_gradient
COMPILES_EACH_SHAPE, DIFFERENTIATION = active.COMPILES_EACH_SHAPE, active.DIFFERENTIATION
concurrent_calls, divide_cores = active.concurrent_calls, active.divide_cores
concrete, gradients_possible, on_host = active.concrete, active.gradients_possible, active.on_host
TrainStep, example_index, all_examples = _trainer.TrainStep, _trainer.example_index, _trainer.all_examples

# What only one backend has is reached through `active`.
__all__ = [
    "COMPILES_EACH_SHAPE",
    "DIFFERENTIATION",
    "TrainStep",
    "active",
    "all_examples",
    "compile",
    "concrete",
    "concurrent_calls",
    "divide_cores",
    "example_index",
    "gradients_possible",
    "input_gradient",
    "on_host",
]
