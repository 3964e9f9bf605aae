"""Work whose times are known beforehand, for the processes that `tools/timing.py` starts."""

import os
import time

from timing import Unavailable


def short(settings):
    return lambda: time.sleep(settings["seconds"])


def long(settings):
    return lambda: time.sleep(3 * settings["seconds"])


def with_a_loss(settings):
    """As `train_on_batch` does, which returns one."""
    return lambda: time.sleep(settings["seconds"]) or 1000.0


def absent(settings):
    raise Unavailable("it is not installed")


def refusing(settings):
    raise ValueError("seconds must be positive\nand so on")


def dying(settings):
    os._exit(1)
