"""Main module of the worker processes, in the place of the program that starts them: see `workers.py`."""

import logging
import signal
import sys


def begin() -> None:
    """Prepares this process to be a worker, before Grain is imported in it."""
    # A terminal sends Ctrl-C, and SLURM its SIGTERM, to all processes: the program decides what becomes of its workers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Grain imports JAX wherever it is installed, for nested structures of JAX's own, which do not occur here.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    sys.modules["jax"] = None  # type: ignore[assignment]
    import grain  # noqa: F401

    del sys.modules["jax"]
    logger.setLevel(level)


if __name__ == "__mp_main__":  # as which `multiprocessing` runs it
    begin()
