"""TensorFlow: GradientTape, tf.function, stateful training step."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from keras_robust.backend import keras_private
from keras_robust.types import Tensor


def example_index(count: Any, before: Any = 0) -> Tensor:
    if not _in_replica():
        return tf.range(count, dtype=tf.int32) + before * count
    # Gradients are not accumulated here, so that nothing comes before. Replicas hold consecutive parts of the global
    # batch, in a last batch not all of one size.
    sizes = _examples_of_replicas(count)
    before = tf.range(tf.size(sizes)) < tf.distribute.get_replica_context().replica_id_in_sync_group
    return tf.range(count, dtype=tf.int32) + tf.reduce_sum(tf.where(before, sizes, 0))


def all_examples(x: Tensor) -> Tensor:
    return tf.distribute.get_replica_context().all_gather(x, axis=0) if _in_replica() else x


def _in_replica() -> bool:
    """Whether this is the graph of one of several replicas."""
    return tf.distribute.get_strategy().num_replicas_in_sync > 1 and tf.distribute.get_replica_context() is not None


def _examples_of_replicas(count: Any) -> Any:
    """The number of examples on each replica, int32 (replicas,), from that on this one."""
    context = tf.distribute.get_replica_context()
    here = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync)  # not all devices add integers
    return tf.cast(context.all_reduce("sum", here * tf.cast(count, tf.float32)), tf.int32)


if TYPE_CHECKING:
    from keras import Model as Base  # what the class is mixed into
else:
    Base = object


class TrainStep(Base):
    reads_first = False

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer,
        loss: Any = None,
        *,
        jit_compile: bool | str = "auto",
        steps_per_execution: int = 1,
        **options: Any,
    ) -> None:
        strategy = self.distribute_strategy
        if strategy.num_replicas_in_sync > 1:
            self._check_distributed(optimizer, loss, jit_compile, steps_per_execution)
        with strategy.scope():
            super().compile(
                optimizer, loss, jit_compile=jit_compile, steps_per_execution=steps_per_execution, **options
            )

    def make_train_function(self, force: bool = False) -> Callable:
        if self.train_function is None or force:  # type: ignore[has-type]
            super().make_train_function(force)
            step = self.train_function  # type: ignore[has-type]

            def function(iterator: Any) -> dict[str, Tensor]:
                # Around the step of all replicas, whose threads trace it side by side.
                with _global_batch_statistics(self.model, self.distribute_strategy):
                    return step(iterator)

            self.train_function = function
        return self.train_function

    def train_step(self, data: tuple[Any, ...]) -> dict[str, Tensor]:
        data = self._attack_batch(self._frozen, self.counter.value, data)
        self.counter.assign_add(1)
        logs = super().train_step(data)
        self._update_averages()
        return self._reducible(self._training_logs(logs))

    def synchronize(self) -> None:
        """Nothing to do: steps work on the variables."""

    def test_step(self, data: tuple[Any, ...]) -> dict[str, Tensor]:
        self._measure(self._frozen, data)
        return self._reducible(super().test_step(data))

    def _reducible(self, logs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Logs as Keras can average them over several hosts: it reduces axis 0, which scalars lack."""
        several = isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy)
        return {name: value[None] for name, value in logs.items()} if several else logs

    def __call__(self, x: Any, training: bool | None = None, **options: Any) -> Any:
        def forward(x: Any) -> Any:
            return super(TrainStep, self).__call__(x, training=training, **options)

        # A padded example would count in the statistics of batch normalisation.
        return forward(x) if training and keras_private.batch_norms(self.model) else _nonempty(forward, x)

    def _frozen(self, x: Tensor) -> Tensor:
        return _nonempty(lambda x: self.call(x, training=False), x)

    def _compute_loss(
        self,
        x: Any = None,
        y: Tensor | None = None,
        y_pred: Any = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        loss = super()._compute_loss(x, y, y_pred, sample_weight, training)
        return _weighted_by_share(loss, tf.shape(keras.tree.flatten(x)[0])[0]) if training else loss

    def _get_metrics_result_or_logs(self, logs: dict[str, Tensor]) -> dict[str, Tensor]:
        # The logs of a step are those of one replica, the metrics those of all.
        metrics = self.get_metrics_result()
        return {name: metrics.get(name, value) for name, value in logs.items()}

    def _maybe_symbolic_build(
        self, iterator: Any = None, data_batch: tuple[np.ndarray, np.ndarray, None] | None = None
    ) -> None:
        # Keras averages one batch over all devices only to look at its shapes, which fails on several hosts.
        if iterator is not None and self.distribute_strategy.num_replicas_in_sync > 1:
            data_batch = keras.tree.map_structure(_one_replica, keras_private.element_spec(iterator))
            iterator = None
        return super()._maybe_symbolic_build(iterator, data_batch)

    def _check_distributed(self, optimizer: Any, loss: Any, jit_compile: Any, steps_per_execution: Any) -> None:
        """Refuses what Keras would run wrongly, or not at all, on several replicas."""
        strategy = self.distribute_strategy
        where = f"under {type(strategy).__name__} with {strategy.num_replicas_in_sync} replicas"
        foreign = [v.path for v in self.variables if not strategy.extended.variable_created_in_scope(v.value)]
        if foreign:
            raise ValueError(f"model must be created inside the strategy's scope; {foreign[0]!r} was not.")
        if jit_compile is True:
            raise ValueError(f"jit_compile must be 'auto' or False {where}: XLA does not take its reductions.")
        if steps_per_execution != 1:
            raise ValueError(f"steps_per_execution must be 1 {where}; received {steps_per_execution!r}.")
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) or self.dtype_policy.name == "mixed_float16":
            raise ValueError(
                f"mixed_float16 cannot be trained {where}, as Keras looks for overflow on one of them only: "
                "use mixed_bfloat16."
            )
        if optimizer.gradient_accumulation_steps:
            raise ValueError(
                f"gradient_accumulation_steps must be None {where}; received {optimizer.gradient_accumulation_steps}."
            )
        for name in ("clipnorm", "clipvalue", "global_clipnorm"):
            if getattr(optimizer, name) is not None:
                raise ValueError(
                    f"{name} must be None {where}: Keras would clip each replica's gradient, not their sum."
                )
        for each in keras.tree.flatten(loss):
            if getattr(each, "reduction", "mean") not in ("sum_over_batch_size", "mean"):
                raise ValueError(
                    f"loss must have the reduction 'sum_over_batch_size' {where}; received {each.reduction!r}."
                )


def _weighted_by_share(loss: Tensor, count: Tensor) -> Tensor:
    """The loss of a replica, its gradient weighted so that the sum over the replicas is that of the global batch.

    Keras takes the mean of the replicas' means, in which the examples of a smaller part would count more.
    """
    if not _in_replica():
        return loss
    sizes = tf.cast(_examples_of_replicas(count), loss.dtype)
    share = tf.cast(count, loss.dtype) / tf.reduce_sum(sizes) * tf.cast(tf.size(sizes), loss.dtype)

    @tf.custom_gradient
    def weighted(loss: Any) -> Any:
        return tf.identity(loss), lambda upstream: upstream * share

    return weighted(loss)


def _nonempty(function: Callable, x: Any) -> Any:
    """`function(x)`, also where a replica gets nothing of a small batch.

    On CPUs TensorFlow's convolution (oneDNN) gives an empty batch the wrong shape.
    """
    if not _in_replica() or not hasattr(x, "device") or tf.config.list_logical_devices("GPU"):
        return function(x)
    count = tf.shape(x)[0]
    padding = [[0, tf.maximum(1 - count, 0)]] + [[0, 0]] * (len(x.shape) - 1)
    return function(tf.ensure_shape(tf.pad(x, padding), [None, *x.shape[1:]]))[:count]


@contextlib.contextmanager
def _global_batch_statistics(model: keras.Model, strategy: Any) -> Iterator[Any]:
    """Batch normalisation over the global batch, as on one device, rather than over each replica's part."""
    several = strategy.num_replicas_in_sync > 1
    layers = [layer for layer in keras_private.batch_norms(model) if not layer.synchronized] if several else []
    for layer in layers:
        layer.synchronized = True
    try:
        yield
    finally:
        for layer in layers:
            layer.synchronized = False


def _one_replica(spec: Any) -> Any:
    return getattr(spec, "_value_specs", (spec,))[0]
