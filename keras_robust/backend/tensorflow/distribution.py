"""TensorFlow: the strategies of tf.distribute."""

import itertools
import os
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_robust.backend import cluster
from keras_robust.backend.distribution import Distribution

KINDS = ("single", "mirrored", "multi_worker", "tpu")


def detect() -> Any:
    processes = _cluster()
    if processes is not None and len(processes.addresses) > 1:
        return "multi_worker"
    if os.environ.get("TPU_NAME") or tf.config.list_physical_devices("TPU"):
        return "tpu"
    return "mirrored" if len(_devices()) > 1 else "single"


def start(kind: Any) -> Any:
    if kind == "multi_worker":
        return _multi_worker()
    if kind == "tpu":
        # Reviewed against TensorFlow's documentation, never run.
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(os.environ.get("TPU_NAME", "local"))
        strategy = tf.distribute.TPUStrategy(resolver)
        return Strategy(kind, strategy.num_replicas_in_sync, hardware="TPU", strategy=strategy)
    devices = _devices()
    hardware = devices[0].device_type
    if kind == "single":
        return Distribution(hardware=hardware)
    strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    return Strategy(kind, len(devices), hardware=hardware, strategy=strategy)


def _multi_worker() -> Any:
    processes = _cluster()
    if processes is None:
        raise ValueError(
            "distribution='multi_worker' needs to know the other processes: set TF_CONFIG, or start with srun."
        )
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(processes.addresses)}),
        task_type="worker",
        task_id=processes.index,
        rpc_layer="grpc",
    )
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        raise ValueError(f"the distribution must be started before TensorFlow computes anything: {error}") from error
    return Strategy(
        "multi_worker",
        strategy.num_replicas_in_sync,
        processes.index,
        len(processes.addresses),
        "GPU" if tf.config.list_logical_devices("GPU") else "CPU",
        processes.local[1],
        strategy=strategy,
    )


@dataclass(frozen=True)
class Strategy(Distribution):
    """Replicas of the model that add up their gradients, under a `tf.distribute.Strategy`."""

    strategy: Any = None

    def scope(self) -> Any:
        return self.strategy.scope()

    def batches(self, dataset: Any) -> Any:
        if self.processes == 1:
            return dataset  # Keras divides it among the devices
        dataset = dataset if isinstance(dataset, tf.data.Dataset) else _from_sequence(dataset)
        parts = self.devices // self.processes
        return self.strategy.distribute_datasets_from_function(
            lambda context: dataset.flat_map(lambda *batch: _split(batch, parts)) if parts > 1 else dataset
        )

    def gather(self, number: Any) -> Any:
        if self.processes == 1:
            return super().gather(number)
        parts = self.devices // self.processes
        place = [float(number) if i == self.process else 0.0 for i in range(self.processes)]
        places = self.strategy.experimental_distribute_values_from_function(lambda context: tf.constant(place))
        return [total / parts for total in self.strategy.reduce("SUM", places, axis=None).numpy().tolist()]


def _split(batch: Any, parts: int) -> Any:
    """The parts of a batch, for the devices of this process, as a `tf.data.Dataset`.

    Where their size is known, so is it in the step: images that are mixed among themselves need not be gathered then.
    """
    counts = {tensor.shape[0] for tensor in keras.tree.flatten(batch)}
    (size,) = counts if len(counts) == 1 else (None,)
    if size is not None and size % parts == 0:
        shape = (parts, size // parts)
        return tf.data.Dataset.from_tensor_slices(
            keras.tree.map_structure(lambda tensor: tf.reshape(tensor, (*shape, *tensor.shape[1:])), batch)
        )

    def part(i: Any) -> Any:
        count = tf.cast(tf.shape(keras.tree.flatten(batch)[0])[0], tf.int64)
        first, last = i * count // parts, (i + 1) * count // parts
        return keras.tree.map_structure(lambda tensor: tensor[first:last], batch)

    return tf.data.Dataset.range(parts).map(part)


def _from_sequence(batches: Any) -> Any:
    """A PyDataset as a `tf.data.Dataset`."""
    count = batches.num_batches
    spec = keras.tree.map_structure(
        lambda array: tf.TensorSpec((None, *np.shape(array)[1:]), np.asarray(array).dtype), batches[0]
    )
    places = itertools.count() if count is None else range(count)
    data = tf.data.Dataset.from_generator(lambda: (batches[i] for i in places), output_signature=spec)
    return data if count is None else data.apply(tf.data.experimental.assert_cardinality(count))


def _cluster() -> Any:
    return cluster.from_tf_config() or cluster.from_slurm()


def _devices() -> Any:
    """The GPUs of this process or, without any, its CPU: one device, or as many as it has been divided into."""
    return tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
