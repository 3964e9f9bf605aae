"""JAX: value_and_grad, jit with the model's variables as arguments, stateless training step."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import keras
import numpy as np

from keras_robust.backend import keras_private
from keras_robust.backend.jax.autodiff import frozen_call


def example_index(count: Any, before: Any = 0) -> Any:
    # Traced code sees the global batch, whatever the number of devices and processes.
    return jax.numpy.arange(count, dtype="int32") + before * count


def all_examples(x: Any) -> Any:
    return x


if TYPE_CHECKING:
    from keras import Model as Base  # what the class is mixed into
else:
    Base = object


class TrainStep(Base):
    reads_first = False

    def train_step(self, state: Any, data: Any) -> Any:
        trainable, non_trainable, optimizer, metrics = state
        position = _position(self.counter, self.non_trainable_variables)
        counter = non_trainable[position]
        frozen = frozen_call(self, trainable, non_trainable)
        data, metrics = self._with_metrics(metrics, lambda: self._attack_batch(frozen, counter, data))
        non_trainable = [*non_trainable[:position], counter + 1, *non_trainable[position + 1 :]]
        logs, state = super().train_step((trainable, non_trainable, optimizer, metrics), data)
        trainable, non_trainable, optimizer, metrics = state
        non_trainable = self._with_averages(trainable, non_trainable)
        return self._training_logs(logs), (trainable, non_trainable, optimizer, metrics)

    def synchronize(self) -> None:
        self.jax_state_sync()

    def _symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> Any:
        distribution = keras.distribution.distribution()
        if iterator is not None and distribution is not None:
            # Keras looks at the first batch alone, fails at one of another size and does not transfer ahead.
            keras_private.replace_batches(
                iterator, lambda batches: _ahead(_placed(batch, distribution) for batch in batches)
            )
        return super()._symbolic_build(iterator, data_batch)

    def test_step(self, state: Any, data: Any) -> Any:
        trainable, non_trainable, metrics = state
        frozen = frozen_call(self, trainable, non_trainable)
        _, metrics = self._with_metrics(metrics, lambda: self._measure(frozen, data))
        return super().test_step((trainable, non_trainable, metrics), data)

    def _with_metrics(self, values: Any, function: Any) -> Any:
        """What `function()` returns, and the values of the metrics after it."""
        with keras.StatelessScope(state_mapping=list(zip(self.metrics_variables, values))) as scope:
            result = function()
        return result, [scope.get_current_value(variable) for variable in self.metrics_variables]

    def _with_averages(self, trainable: Any, non_trainable: Any) -> Any:
        variables = [*self.trainable_variables, *self.non_trainable_variables]
        with keras.StatelessScope(state_mapping=list(zip(variables, [*trainable, *non_trainable]))) as scope:
            self._update_averages()
        return [scope.get_current_value(variable) for variable in self.non_trainable_variables]


def _position(variable: Any, variables: Any) -> Any:
    return next(i for i, candidate in enumerate(variables) if candidate is variable)


def _placed(batch: int, distribution: Any) -> Any:
    """The batch of this process on its devices: divided among them or, where they are too many, whole on each."""
    mesh = distribution.device_mesh.backend_mesh
    counts = {len(part) for part in jax.tree.leaves(batch)}
    even = all(count % len(mesh.local_devices) == 0 for count in counts)
    if not even and jax.process_count() > 1:
        raise ValueError(
            f"batch_size must be a multiple of the number of devices, {mesh.size}, and so must the last batch be: "
            f"a process received {max(counts)} images for its {len(mesh.local_devices)} devices."
        )
    spec = jax.sharding.PartitionSpec(distribution.batch_dim_name if even else None)
    sharding = jax.sharding.NamedSharding(mesh, spec)
    return jax.tree.map(lambda part: jax.make_array_from_process_local_data(sharding, np.asarray(part)), batch)


def _ahead(batches: Any) -> Iterator[Any]:
    """The same, one further begun: transfers to the devices run beside the step."""
    waiting = next(batches, None)
    while waiting is not None:
        following = next(batches, None)
        yield waiting
        waiting = following
