"""Sources that show in which process they are read. Imports no framework, as it is imported by workers."""

import os
import sys
import threading
import zlib
from multiprocessing import shared_memory

import numpy as np

from keras_robust.data.sources import Source

FRAMEWORKS = {"keras", "tensorflow", "jax", "torch", "keras_cv"}


def shared_prefix(report):
    """What the shared memory of the workers that report there is called, so that other programs' is told from it."""
    return f"/k{zlib.crc32(str(report).encode()) % 2**24:06x}_"  # at most ten letters


class OfProcesses(Source):
    """Forty images of one value each; every process that reads one leaves a file of the frameworks that it holds."""

    class_names = ("a", "b")

    def __init__(self, report):
        self.labels, self.report = np.arange(40) % 2, report

    def __setstate__(self, state):
        self.__dict__.update(state)
        shared_memory._SHM_NAME_PREFIX = shared_prefix(self.report)

    def image(self, index):
        (self.report / str(os.getpid())).write_text(" ".join(sorted(FRAMEWORKS & {*sys.modules})))
        return np.full((8, 8, 3), index, np.uint8)


class Failing(OfProcesses):
    def name(self, index):
        return f"{index}.jpg"

    def image(self, index):
        if index == 17:
            raise ValueError(f"{self.name(index)} cannot be read as an image")
        return super().image(index)


class Foreign(Exception):
    """An exception that cannot travel between processes."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class Untold(OfProcesses):
    def image(self, index):
        raise Foreign("the connection is gone")


class Watched(Source):
    """The images of another source; a worker that reads one leaves a file of the frameworks that it holds."""

    def __init__(self, source, report):
        self.source, self.report, self.process = source, report, os.getpid()
        self.class_names, self.labels = source.class_names, source.labels

    def image(self, index):
        if os.getpid() != self.process:
            (self.report / "frameworks").write_text(" ".join(sorted(FRAMEWORKS & {*sys.modules})))
        return self.source.image(index)


class Large(OfProcesses):
    """Holds many bytes; a process that reads an image tells whether they are its own."""

    def __init__(self, report):
        super().__init__(report)
        self.content = np.arange(1_000_000, dtype="int32")

    def image(self, index):
        (self.report / str(os.getpid())).write_text(f"{self.content.flags.owndata} {self.content[index * 1000]}")
        return np.full((8, 8, 3), index, np.uint8)
