"""Random layers in a frozen model: every call draws anew, although the states of its seeds stay as they are."""

import inspect
import itertools
from typing import Any

from keras import ops

from keras_robust.backend.keras_private import seed_states
from keras_robust.types import Tensor


def inference_mode(layer: Any) -> dict[str, bool]:
    """What tells `stateless_call` that this is no training: nothing, where the layer's `call` does not ask."""
    parameters = inspect.signature(layer.call).parameters.values()
    asks = any(each.name == "training" or each.kind is each.VAR_KEYWORD for each in parameters)
    return {"training": False} if asks else {}


def calls_with_fresh_draws(layer: Any, non_trainable: Any) -> Any:
    """States for the calls of `layer` on constant variables.

    Args:
        layer: a Keras layer or model.
        non_trainable: values of `layer.non_trainable_variables`.

    Returns:
        A function from the images of a call to the values for `stateless_call`: those given, but for the states of seed
        generators, which advance by a number made of how many calls came before and of the images. In a compiled loop,
        whose body is traced once, the images alone tell one call from the next. Without it a model whose output is
        random would show one and the same noise to all gradients that are averaged, and look more robust than it is.
    """
    states = {id(state) for state in seed_states(layer)}
    places = [i for i, variable in enumerate(layer.non_trainable_variables) if id(variable) in states]
    if not places:
        return lambda x: non_trainable
    calls = itertools.count(1)

    def values(x: Tensor) -> Any:
        # 2**24: what float32 tells apart. The prime keeps calls apart whose images are alike.
        scattered = ops.sum(ops.cast(ops.stop_gradient(x), "float32")) * 997.0 % 1.0 * 2.0**24
        advanced = list(non_trainable)
        for i in places:
            state = advanced[i]
            offset = ops.cast(scattered, "int32") + 15_485_863 * (next(calls) % 100)
            advanced[i] = state + ops.cast(ops.stack([ops.zeros_like(offset), offset]), state.dtype)
        return advanced

    return values
