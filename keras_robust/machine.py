"""The machine that runs this: its cores, and which of its processes are alive, on any operating system."""

import os
import platform
import zlib
from functools import cache


def available_cores() -> int:
    """Cores that this process may use.

    Example:
        >>> available_cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_of_cores(processes: int) -> int:
    """Cores for each of several processes that run on this machine at once, at least one.

    srun and mpirun may have given each its own: then this one sees fewer than the job, or the machine, has, and these
    are its share. torchrun leaves all of them to each.
    """
    cores = available_cores()
    of_job = os.environ.get("SLURM_CPUS_ON_NODE", "")
    there = int(of_job) if of_job.isdecimal() else os.cpu_count() or 1
    own = cores < there and "LOCAL_WORLD_SIZE" not in os.environ
    return cores if own else max(cores // processes, 1)


@cache
def identity() -> str:
    """Eight letters for this machine or container: a process number means a process within it."""
    try:
        numbers_of = os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux
        numbers_of = ""
    return f"{zlib.crc32((platform.node() + numbers_of).encode()):08x}"


@cache
def processor() -> str:
    """Eight letters for what this machine's processor can do: a program compiled for it may fail on another one."""
    try:
        with open("/proc/cpuinfo") as file:
            abilities = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:  # no Linux
        abilities = platform.processor()
    return f"{zlib.crc32((platform.machine() + abilities).encode()):08x}"


def runs(process: int) -> bool:
    """Whether a process of that number is alive; True where that cannot be known."""
    if os.name == "nt":
        return True  # where a signal of 0 would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
