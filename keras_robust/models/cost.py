"""Cost of a model: its parameters and multiply-adds, counted on its graph."""

import math
from collections.abc import Callable
from typing import Any

import keras

from keras_robust.backend import keras_private
from keras_robust.types import Tensor


def parameters(model: keras.Model) -> int:
    """Number of trainable weights, as the literature counts them (batch norm's moving statistics left out).

    Example:

    >>> parameters(kr.models.create("convnext_tiny"))
    28589128
    """
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def multiply_adds(model: keras.Model, input_size: int | tuple[int, int] = 224) -> int:
    """Multiply-adds of one forward pass on one image: what the literature calls FLOPs.

    Counts convolutions, dense layers and the two products of each attention; additions of biases, norms, activations
    and other work on single values are left out, as is usual. The graph is walked with symbolic tensors: nothing is
    computed, and the weights need no values.

    Args:
        model: functional `keras.Model` of one input, `(batch, height, width, channels)`.
        input_size: height and width in pixels, an int or a pair.

    Returns:
        An int.

    Raises:
        ValueError: the model cannot take images of that size.

    Example:

    >>> round(multiply_adds(kr.models.create("convnext_tiny"), 224) / 1e9, 2)
    4.46
    """
    height, width = (input_size, input_size) if isinstance(input_size, int) else input_size
    total = 0

    def count(operation: keras.Layer) -> Callable:
        def run(*args: Any, **kwargs: Any) -> Tensor:
            nonlocal total
            outputs = operation.compute_output_spec(*args, **kwargs)
            if hasattr(operation, "kernel"):
                # Each entry of a kernel, dense or convolutional, is used once at each position of the output.
                total += math.prod(operation.kernel.shape) * math.prod(outputs.shape[:-1])
            elif type(operation).__name__ == "Einsum":
                total += _index_space(operation.subscripts, args)
            elif isinstance(operation, keras.layers.Layer) and keras_private.flat_layers(operation, include_self=False):
                inputs = [keras.Input(batch_shape=x.shape, dtype=x.dtype) for x in args]
                walk(keras.Model(inputs, operation.call(*inputs)), args)
            return outputs

        return run

    def walk(graph: keras.Model, inputs: Any) -> None:
        keras_private.run_through_graph(graph, inputs, count)

    walk(model, [keras.KerasTensor((1, height, width, model.input_shape[-1]))])
    return total


def _index_space(subscripts: Any, operands: Any) -> Any:
    """Product of the sizes of all indices of an einsum."""
    sizes: dict[Any, Any] = {}
    for indices, operand in zip(subscripts.split("->")[0].split(","), operands):
        sizes.update(zip(indices, operand.shape))
    return math.prod(sizes.values())
