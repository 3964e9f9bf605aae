"""PyTorch: pure functions traced to graphs of PyTorch's operations and compiled, one graph per set of shapes."""

from collections.abc import Callable
from typing import Any

import keras
import torch
from torch.fx.experimental.proxy_tensor import make_fx


class Compiled:
    """A pure function of nested tensors, compiled at its first call with tensors of these shapes and types.

    torch.compile reads Python, and takes minutes over that of Keras' layers, which differs in every layer by name. So
    the function is run once on tensors without values, which records the operations, as JAX does; the record, freed of
    Python, is what is compiled. Gradients pass through it to what requires them.

    Args:
        function: of tensors, nested tensors and None alone, to the same; without side effects.

    Raises:
        ValueError: in the first call, a function that cannot be recorded, as its course depends on values or it uses
            tensors other than its arguments.
    """

    def __init__(self, function: Callable) -> None:
        self.function = function
        self.graphs: dict[Any, Any] = {}

    def __call__(self, *arguments: Any) -> Any:
        leaves = keras.tree.flatten(arguments)
        tensors = [leaf for leaf in leaves if leaf is not None]
        key = tuple(
            None if leaf is None else (leaf.shape, leaf.dtype, leaf.device, leaf.requires_grad) for leaf in leaves
        )
        if key not in self.graphs:
            self.graphs[key] = self._compiled(arguments, leaves, tensors)
        graph, structure = self.graphs[key]
        return _packed(structure, graph(*tensors))

    def _compiled(self, arguments: Any, leaves: Any, tensors: Any) -> Any:
        structure: Any = None

        def flat(*tensors: Any) -> list[Any]:
            nonlocal structure
            given = iter(tensors)
            filled = [None if leaf is None else next(given) for leaf in leaves]
            result = self.function(*keras.tree.pack_sequence_as(arguments, filled))
            structure = keras.tree.map_structure(lambda leaf: leaf is not None, result)
            return [leaf for leaf in keras.tree.flatten(result) if leaf is not None]

        # Recorded above autograd where gradients are to pass, below it where the function takes them itself.
        differentiable = any(tensor.requires_grad for tensor in tensors)
        try:
            graph = make_fx(flat, tracing_mode="fake", pre_dispatch=differentiable)(*tensors)
        except Exception as error:  # PyTorch raises what it likes from inside of what it cannot trace
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                "jit_compile must be False for this model and attack: PyTorch cannot trace them, as their course "
                f"depends on values or they draw random numbers ({reason})."
            ) from error
        return torch.compile(graph, dynamic=False), structure


def _packed(structure: Any, tensors: Any) -> Any:
    given = iter(tensors)
    return keras.tree.map_structure(lambda present: next(given) if present else None, structure)


class CompiledModel:
    """The training pass of a Keras model, compiled; variables that it moves, as batch-norm statistics, are assigned."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.graph = Compiled(self._pass)

    def _pass(self, trainable: Any, non_trainable: Any, x: Any) -> Any:
        outputs, states, losses = self.model.stateless_call(
            trainable, non_trainable, x, training=True, return_losses=True
        )
        if losses:
            raise ValueError("layers of the model add losses")
        return outputs, states

    def __call__(self, x: Any) -> Any:
        trainable = [variable.value for variable in self.model.trainable_variables]
        variables = self.model.non_trainable_variables
        outputs, states = self.graph(trainable, [variable.value for variable in variables], x)
        with torch.no_grad():
            for variable, state in zip(variables, states):
                variable.assign(state)
        return outputs
