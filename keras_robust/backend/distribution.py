"""Distribution of a training over devices and processes, by backend.

The module of the active backend defines:

`KINDS`
    The names of its distributions, "single" first.
`detect()`
    The one that suits the environment and the devices of this machine.
`start(kind)`
    A `Distribution` of that kind; raises a ValueError where the environment does not have what it needs.
"""

import importlib
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class Distribution:
    """A training in one process, on one device. Subclasses spread it over more.

    Attributes:
        kind: its name among `KINDS`.
        devices: how many devices share each global batch.
        process, processes: the index of this process and how many there are.
        hardware: what the devices are, for people.
        neighbours: how many of the processes run on this machine, this one included, as far as the launcher says it.
        hint: what would make use of more devices, for people, or nothing.
    """

    kind: str = "single"
    devices: int = 1
    process: int = 0
    processes: int = 1
    hardware: str = "CPU"
    neighbours: int = 1
    hint: str = ""

    @property
    def shard(self) -> Any:
        """(i, n): this process reads the i-th of n parts of each global batch, 1 <= i <= n."""
        return self.process + 1, self.processes

    @property
    def writes(self) -> Any:
        """Whether this process, and it alone, writes logs and checkpoints."""
        return self.process == 0

    def scope(self) -> Any:
        """The context in which model, optimizer and metrics are created, compiled and trained."""
        return nullcontext()

    def batches(self, dataset: Any) -> Any:
        """What `fit` takes, from this process' parts of the global batches: a `tf.data.Dataset`, or a PyDataset.

        With several processes of several devices each TensorFlow does not see how long the data set is: let it repeat
        itself and give `fit` the steps of an epoch.
        """
        return dataset

    def gather(self, number: Any) -> Any:
        """The number that each process gives, as a list of floats; all processes must call it at the same point."""
        return [float(number)]

    def any(self, flag: Any) -> Any:
        """Whether `flag` holds in any of the processes; as `gather`."""
        return any(self.gather(bool(flag)))

    def stop(self) -> None:
        """Leaves the group of processes, at the end of the program."""


active = importlib.import_module(f"keras_robust.backend.{keras.backend.backend()}.distribution")
