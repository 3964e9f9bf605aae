"""PyTorch: a process for each device, by torch.distributed, as Keras 3.15 knows no distribution here.

A Keras that has one (`KERAS_DISTRIBUTES`) can take over what `processes.py` does, once its updates are those of the
global batch in all that tests/recipes/test_distribution.py looks at; kinds and launchers stay.
"""

import importlib.util
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from keras_robust.backend import cluster
from keras_robust.backend.distribution import Distribution
from keras_robust.backend.torch import processes
from keras_robust.backend.torch.watch import Watch

KINDS = ("single", "data_parallel")
KERAS_DISTRIBUTES = importlib.util.find_spec("keras.src.backend.torch.distribution_lib") is not None
# For what only one process does, as writing a checkpoint, the others wait; for one that has died they do not.
PATIENCE = timedelta(minutes=30)


def detect() -> Any:
    found = _cluster()
    return "data_parallel" if found is not None and len(found.addresses) > 1 else "single"


def start(kind: Any) -> Any:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    hardware = "GPU" if gpus else "CPU"
    if kind == "single":
        return Distribution(hardware=hardware, hint=_hint(gpus, 1))
    found = _cluster()
    if found is None:
        raise ValueError(
            "distribution='data_parallel' takes a process for each device on the torch backend: start them by torchrun "
            "or srun; received the environment of one process alone."
        )
    place, neighbours = found.local
    by_torchrun = cluster.from_torchrun() is not None  # which may have opened the port of `addresses[0]` itself
    if gpus:
        if gpus > 1 and not by_torchrun and not found.distinct:
            raise ValueError(
                "KERAS_DISTRIBUTION_JOB_ADDRESSES must hold the 'host:port' of every process where a machine has "
                f"several GPUs: by them each finds its own; received that of process 0 alone, and {gpus} GPUs."
            )
        if gpus > 1 and neighbours > gpus:
            raise ValueError(
                f"distribution='data_parallel' takes a GPU for each process; received {neighbours} processes on a "
                f"machine with {gpus}."
            )
        torch.cuda.set_device(place % gpus)
    count = len(found.addresses)
    if not distributed.is_initialized():
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus else "gloo",
            "env://" if by_torchrun else f"tcp://{found.addresses[0]}",
            PATIENCE,
            count,
            found.index,
        )
    watch = Watch(found.hosts[0])
    return DataParallel(kind, count, found.index, count, hardware, neighbours, _hint(gpus, neighbours), watch=watch)


@dataclass(frozen=True)
class DataParallel(Distribution):
    """Processes that add up their gradients, each with its part of every batch."""

    watch: Any = None

    def scope(self) -> AbstractContextManager[None]:
        return processes.sharing()

    def gather(self, number: Any) -> Any:
        return processes.exchanged(float(number))

    def stop(self) -> None:
        # The others would take the end of a process that does not say so for its death.
        self.watch.stop()
        distributed.destroy_process_group()


def _cluster() -> Any:
    # GPUs are not shared out by the environment, which PyTorch has read when Keras asked it for them.
    return cluster.from_torchrun() or cluster.from_keras() or cluster.from_slurm(share_gpus=False)


def _hint(gpus: int, neighbours: int) -> str:
    if gpus <= neighbours:
        return ""
    return (
        f"{gpus - neighbours} more GPUs are idle here: PyTorch takes a process for each, "
        f"torchrun --nproc-per-node={gpus} --no-python keras-robust train ..."
    )
