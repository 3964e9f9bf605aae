"""JAX: keras.distribution.DataParallel over the devices of all processes."""

import importlib.util
from dataclasses import dataclass
from typing import Any

import jax
import keras
import numpy as np

from keras_robust.backend import cluster
from keras_robust.backend.distribution import Distribution

KINDS = ("single", "data_parallel")


def detect() -> Any:
    _join()
    return "data_parallel" if jax.device_count() > 1 else "single"


def start(kind: Any) -> Any:
    if kind == "single":
        return Distribution(hardware=_hardware())
    _join()
    # Each process reads its own part of every batch.
    parallel = keras.distribution.DataParallel(auto_shard_dataset=False)
    processes = _cluster()
    return DataParallel(
        kind,
        jax.device_count(),
        jax.process_index(),
        jax.process_count(),
        _hardware(),
        1 if processes is None else processes.local[1],
        parallel=parallel,
    )


@dataclass(frozen=True)
class DataParallel(Distribution):
    """One program over all devices: XLA divides the batch and adds up the gradients."""

    parallel: Any = None

    def scope(self) -> Any:
        return self.parallel.scope()

    def gather(self, number: Any) -> Any:
        if self.processes == 1:
            return super().gather(number)
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(np.float32(number)).tolist()

    def stop(self) -> None:
        # Without it the processes wait for one another at the end, some of them for ever.
        if self.processes > 1:
            jax.distributed.shutdown()


def _join() -> None:
    """Joins the other processes, if there are any and it has not been done."""
    if jax.distributed.is_initialized():
        return
    processes = _cluster()
    if processes is not None and len(processes.addresses) > 1:
        # JAX' own reading of a SLURM step gives each process one GPU even where it has a whole node.
        jax.distributed.initialize(
            processes.addresses[0], len(processes.addresses), processes.index, cluster_detection_method="deactivate"
        )
    elif processes is None and importlib.util.find_spec("libtpu"):
        jax.distributed.initialize()  # a TPU VM knows its neighbours; documented, never run


def _cluster() -> Any:
    return cluster.from_keras() or cluster.from_slurm()


def _hardware() -> Any:
    return jax.devices()[0].platform.upper()
