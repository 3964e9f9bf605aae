"""Private members of Keras that this package uses, in one place: what a new release of Keras may take away.

`MEMBERS` lists them all; `tests/backend/test_keras_private.py` names those that the installed Keras lacks. Where
a method is overridden (`backend/<framework>/trainer.py`), the override stands there.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_robust.types import Tensor

# Owner, member, and what it is needed for.
MEMBERS = (
    ("layer", "_flatten_layers", "all layers inside of one another"),
    ("layer", "_seed_generators", "random layers that draw anew in every gradient of a frozen model"),
    ("batch normalization", "_moments", "statistics of the global batch, of several processes on PyTorch"),
    ("optimizer", "_learning_rate", "the schedule, which gradient accumulation has to count in updates"),
    ("compiled model", "_compile_loss", "losses built on logits where the augmentation is in the step"),
    ("compiled model", "_compile_metrics", "metrics built on logits where the augmentation is in the step"),
    ("compiled model", "_aggregate_additional_loss", "losses of layers beside a paired objective"),
    ("compiled model", "_compute_loss", "overridden on TensorFlow and PyTorch: examples of all parts count alike"),
    ("compiled model", "_get_metrics_result_or_logs", "overridden on TensorFlow: logs of all replicas"),
    ("compiled model", "_maybe_symbolic_build", "overridden on TensorFlow: shapes on several hosts"),
    ("compiled model", "_symbolic_build", "overridden on JAX: batches are placed on the devices here"),
    ("compiled model", "_should_torch_compile", "overridden on PyTorch: the step is compiled in parts"),
    ("functional model", "_run_through_graph", "multiply-adds, counted on the graph"),
    ("tensorflow epoch iterator", "_distributed_dataset", "shapes of a replica's part of a batch"),
    ("jax epoch iterator", "_get_iterator", "batches placed on the devices"),
)


def flat_layers(layer: keras.Layer, include_self: bool = True) -> list[keras.Layer]:
    """All layers inside of a layer or model, at any depth."""
    return list(layer._flatten_layers(include_self=include_self))


def seed_states(layer: keras.Layer) -> list[keras.Variable]:
    """The states of all seed generators inside of a layer or model."""
    return [generator.state for part in flat_layers(layer) for generator in part._seed_generators]


def batch_norms(model: keras.Model) -> list[Any]:
    """The layers of batch normalisation inside of a model."""
    return [layer for layer in flat_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]


@contextmanager
def batch_moments(model: keras.Model, moments: Callable) -> Iterator[None]:
    """Inside, batch normalisation takes mean and variance from `moments(x, axes)`; masks are not looked at."""
    layers = batch_norms(model)
    for layer in layers:
        layer._moments = lambda x, mask, axis=layer.axis: moments(x, [i for i in range(x.ndim) if i != axis % x.ndim])
    try:
        yield
    finally:
        for layer in layers:
            del layer._moments


def learning_rate_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """The learning rate as it was given: a schedule, a variable or a number."""
    return optimizer._learning_rate


def build_loss_and_metrics(model: keras.Model, y: keras.KerasTensor, y_pred: keras.KerasTensor) -> None:
    """Build the compiled loss and metrics on tensors of other shapes than those of the data."""
    for part in (model._compile_loss, model._compile_metrics):
        if part is not None and not part.built:
            part.build(y, y_pred)


def additional_loss(model: keras.Model, loss: Tensor) -> Tensor:
    """A loss that a layer has added, as it enters the total."""
    return model._aggregate_additional_loss(loss)


def run_through_graph(model: keras.Model, inputs: Any, operation: Callable) -> Any:
    """Call a functional model with `operation(layer)` in the place of each layer."""
    return model._run_through_graph(inputs, operation_fn=operation)


def element_spec(iterator: Any) -> Any:
    """The shapes and types of what a TensorFlow epoch iterator gives."""
    return iterator._distributed_dataset.element_spec


def replace_batches(iterator: Any, change: Callable[[Iterable], Iterator]) -> None:
    """Let a JAX epoch iterator give `change(batches)` in the place of its batches."""
    batches = iterator.data_adapter.get_jax_iterator
    iterator._get_iterator = lambda: change(batches())
