"""Reading of a Keras model's graph: what it ends in, logits or probabilities, and what it does to pixels first."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

# Rows of logits that lie in [0, 1] and sum to 1 this closely are probabilities.
SUM_TOLERANCE = 1e-3
# A model that multiplies its input by less than this takes 8-bit pixels.
LARGEST_SCALE_OF_BYTES = 0.05
# Packages whose layers are known, and operations that give on what they get.
KNOWN = ("keras", "keras_robust")
PASSED_ON = ("Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze")
NOISE = 64  # height and width of random images, pixels, for models of any size


def last_operation(model: keras.Model) -> Any:
    """The operation that makes a model's output: a layer, or one of `keras.ops`; None where it is not known.

    A model within a model is looked into, and through what changes no value.
    """
    graph = graph_of(model)
    if graph is None or len(graph.outputs) != 1:
        return None
    operation = maker_of(graph, graph.outputs[0])
    while changes_no_value(operation):
        operation = maker_of(graph, operation.input)
    inner = last_operation(operation) if isinstance(operation, keras.Model) else None
    return inner or operation


def maker_of(model: keras.Model, tensor: keras.KerasTensor) -> Any:
    """The operation of a functional model that makes a symbolic tensor; None for one that is called several times."""
    return next((each for each in reversed(model.operations) if _output(each) is tensor), None)  # type: ignore[attr-defined]


def changes_no_value(operation: Any) -> bool:
    """Whether an operation gives its input on in inference, in another shape or dtype at most."""
    linear = isinstance(operation, keras.layers.Activation) and operation.activation.__name__ == "linear"
    return linear or type(operation).__name__ in PASSED_ON


def first_layers(model: keras.Model) -> list[keras.Layer]:
    """The layers that a model begins with, in their order, as far as it is known what they do; inputs excluded.

    They end with the first that has weights, and before the first that is no layer of Keras or of this package: an
    operation such as `255 * inputs`, a `Lambda`.
    """
    found: list[keras.Layer] = []
    _add_first_layers(model, found)
    return found


def _add_first_layers(model: keras.Model, found: list[keras.Layer]) -> bool:
    """Adds them to `found`; returns whether the whole model is known: then what follows it belongs to the beginning."""
    graph = graph_of(model)
    if graph is None:
        return False
    for operation in graph.operations:  # type: ignore[attr-defined]
        if isinstance(operation, keras.layers.InputLayer):
            continue
        if isinstance(operation, keras.Model):
            if not _add_first_layers(operation, found):
                return False
            continue
        known = isinstance(operation, keras.Layer) and type(operation).__module__.partition(".")[0] in KNOWN
        if not known or isinstance(operation, keras.layers.Lambda):
            return False
        found.append(operation)
        if operation.count_params():
            return False
    return True


def graph_of(model: Any) -> keras.Model | None:
    """A functional model of the same layers, of functional and of built sequential models; None of others."""
    if not isinstance(model, keras.Model) or not getattr(model, "outputs", None):
        return None
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return model if hasattr(model, "operations") else None


def activation_of(operation: Any) -> str | None:
    """The activation that a model ends in, "softmax" or "sigmoid"; None for any other and where there is none."""
    for name, kind in (("softmax", "Softmax"), ("sigmoid", "Sigmoid")):
        activation = getattr(operation, "activation", None)
        if getattr(activation, "__name__", None) == name or type(operation).__name__ == kind:
            return name
    return None


def is_probabilities(outputs: np.ndarray) -> bool:
    """Whether outputs (n, classes), or (n, height, width, classes), are probabilities: in [0, 1], with the sum 1."""
    outputs = outputs.reshape(-1, outputs.shape[-1]) if outputs.ndim == 4 else outputs
    if outputs.ndim != 2 or outputs.shape[1] < 2 or not len(outputs) or outputs.dtype.kind in "biu":
        return False
    inside = (outputs >= 0).all() and (outputs <= 1).all()
    return bool(inside and (np.abs(outputs.sum(1, dtype="float64") - 1) < SUM_TOLERANCE).all())


def check_logits(model: Any, outputs: np.ndarray | None = None) -> None:
    """Refuses a model that returns probabilities.

    What attacks and losses make of them looks like robustness: the gradient of a softmax vanishes where it is certain.

    Args:
        model: any callable; of functional and sequential Keras models the graph is read. One that declares itself not
            `differentiable` passes: what attacks it takes no gradients.
        outputs: what it returned for some images, (n, classes), if that is at hand.

    Raises:
        ValueError: the model ends in a softmax or a sigmoid, or the outputs are probabilities.
    """
    if not getattr(model, "differentiable", True):
        return
    activation = activation_of(last_operation(model)) if isinstance(model, keras.Model) else None
    if activation is None and (outputs is None or not is_probabilities(outputs)):
        return
    seen = f"it ends in a {activation}" if activation else "each row of its outputs sums to 1"
    raise ValueError(
        f"model must return logits, not probabilities: {seen}. kr.adapt(model, ...), or --pixels of a command, makes "
        "logits of them."
    )


def outputs_on_noise(model: keras.Model) -> np.ndarray | None:
    """What a model returns for random images, where its graph does not tell what it ends in; else None."""
    last = last_operation(model)
    if last is not None and type(last).__module__.startswith("keras."):
        return None
    shape = [side or NOISE for side in model.input_shape[1:]]
    try:
        outputs = model(np.random.default_rng(0).random((2, *shape), "float32"), training=False)
    except Exception:
        return None
    return np.asarray(keras.ops.convert_to_numpy(outputs), "float32")


def takes_bytes(model: Any) -> bool:
    """Whether a Keras model divides its input by something like 255 first: it takes pixels in [0, 255].

    Models of `keras.applications` with preprocessing inside do so, and most tutorials' own.
    """
    scale = np.ones(())
    for layer in first_layers(model) if isinstance(model, keras.Model) else []:
        if isinstance(layer, keras.layers.Rescaling):
            scale = scale * np.asarray(layer.scale)
        elif isinstance(layer, keras.layers.Normalization):
            scale = scale / np.sqrt(np.asarray(keras.ops.convert_to_numpy(layer.variance)))
        elif hasattr(layer, "std"):  # this package's Normalize
            scale = scale / np.asarray(layer.std)
    return float(np.max(np.abs(scale))) < LARGEST_SCALE_OF_BYTES


def check_pixels(model: Any) -> None:
    """Refuses a model that takes pixels in [0, 255], where this package gives those in [0, 1].

    Raises:
        ValueError: the model begins with a `Rescaling` by 1/255 or the like.
    """
    if takes_bytes(model):
        raise ValueError(
            "model must take pixels in [0, 1]: it begins with a rescaling of pixels in [0, 255], and would see black "
            "images. kr.adapt(model, ...), or --pixels of a command, puts the range right."
        )


def check_is_graph(model: keras.Model) -> None:
    """Refuses a model of which Keras does not know from what input to what output it goes.

    Raises:
        ValueError: the model is a subclassed one, or was never called.
    """
    try:
        known = getattr(model, "output_shape", None) is not None and model.input_shape is not None
    except (AttributeError, ValueError):
        known = False
    if not known:
        raise ValueError(
            f"model must be a functional or a built sequential one; received a {type(model).__name__}, whose inputs "
            "and outputs Keras does not know. kr.adapt(model, pixels=...) makes one around it that shares its weights."
        )


def rebuilt(model: keras.Model, inputs: keras.KerasTensor, change: Callable[[keras.Layer], keras.Layer]) -> keras.Model:
    """A copy of a functional model on other inputs, its weights copied.

    Args:
        inputs: symbolic images.
        change: from each layer to the new one in its place, with weights of the same shapes.

    Raises:
        ValueError, TypeError: a layer does not take inputs of this shape, or cannot be made again.
    """
    plain = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    copy = keras.models.clone_model(plain, input_tensors=inputs, clone_function=change)
    copy.set_weights(model.get_weights())
    return copy


def again(layer: keras.Layer) -> keras.Layer:
    """A new layer of the same configuration."""
    return type(layer).from_config(layer.get_config())


def _output(operation: Any) -> Any:
    try:
        return operation.output
    except (AttributeError, ValueError):  # called more than once, or never
        return None
