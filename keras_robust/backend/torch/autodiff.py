"""PyTorch: autograd.grad on the images, eager, weights detached while the model is attacked."""

import weakref
from typing import Any

import keras
import torch

from keras_robust.backend.seeds import calls_with_fresh_draws, inference_mode
from keras_robust.types import Tensor


def input_gradient(function: Any, x: Tensor) -> Any:
    with torch.inference_mode(False), torch.enable_grad():
        x = usable(x).detach().requires_grad_(True)
        losses, aux = function(x)
        if not losses.requires_grad:  # the model does not look at its images
            return losses, aux, torch.zeros_like(x)
        (gradient,) = torch.autograd.grad(losses.sum(), x, allow_unused=True, materialize_grads=True)
    return losses.detach(), keras.tree.map_structure(torch.Tensor.detach, aux), gradient


def gradients_possible() -> Any:
    return torch.inference_mode(False)


def usable(value: Any) -> Any:
    """A tensor that gradients may pass through; those made in `torch.inference_mode` are copied."""
    return value.clone() if isinstance(value, torch.Tensor) and value.is_inference() else value


def frozen_call(layer: Any) -> Any:
    """The layer in inference mode on detached weights, so that no pass stores what only their gradients need."""
    return frozen_on(layer, *constants(layer))


def constants(layer: Any) -> Any:
    """Values of the trainable and the other variables that no gradient passes to."""
    trainable = [usable(variable.value).detach() for variable in layer.trainable_variables]
    return trainable, [usable(variable.value) for variable in layer.non_trainable_variables]


def frozen_on(layer: Any, trainable: Any, non_trainable: Any) -> Any:
    """The layer in inference mode on these values of its variables."""
    states = calls_with_fresh_draws(layer, non_trainable)
    mode = inference_mode(layer)
    return lambda x: layer.stateless_call(trainable, states(x), x, **mode)[0]


COMPILES_EACH_SHAPE = False
DIFFERENTIATION = ("torch/autograd/__init__.py", frozenset({"grad", "backward"}))


def compile(function: Any, model: Any, trace: bool = False) -> Any:
    if not isinstance(model, keras.Layer):
        return _without_graph(function, lambda: model)
    owner = weakref.ref(model)  # what is kept by model must not keep it
    return _without_graph(function, lambda: frozen_call(owner()))


def _without_graph(function: Any, forward: Any) -> Any:
    def run(*tensors: Any) -> Any:
        with gradients_possible(), torch.no_grad():
            return function(forward(), *map(usable, tensors))

    return run


def concurrent_calls() -> Any:
    return 1


def divide_cores(most_calls: Any) -> None:
    pass


def concrete(x: Tensor) -> Any:
    return not torch.compiler.is_compiling()


def on_host(function: Any, x: Tensor, shape: tuple) -> Any:
    return torch.from_numpy(function(x.detach().cpu().numpy())).to(x.device)
