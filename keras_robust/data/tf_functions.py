"""Python functions called from the threads of tf.data, which must come to rest before the interpreter ends.

A thread that asks for the interpreter's lock while the interpreter ends is ended itself, in the middle of its work; the
iterator, which is destroyed next, then waits for that thread for ever. So exit waits until the threads have prepared
all that they may: nobody takes it any more.
"""

import atexit
import functools
import threading
import time
from typing import Any

import tensorflow as tf

# The threads are at rest when none has called for so long; after the second time exit goes on whatever they do.
REST_SECONDS, MOST_SECONDS = 0.5, 30.0


class Calls:
    """Knows how many calls are under way, and when the last one began or ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way, self._last = 0, float("-inf")

    def __enter__(self) -> None:
        self._count(1)

    def __exit__(self, *error: Any) -> None:
        self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._under_way += change
            self._last = time.monotonic()

    def wait(self) -> None:
        """Return when they have come to rest."""
        begun = time.monotonic()
        while time.monotonic() - begun < MOST_SECONDS:
            if not self._under_way and time.monotonic() - self._last > REST_SECONDS:
                return
            time.sleep(REST_SECONDS / 10)


_calls = Calls()
atexit.register(_calls.wait)


def numpy_function(function: Any, inputs: Any, types: Any, stateful: bool = False) -> Any:
    """`tf.numpy_function`, for functions in data sets that may still be at work when the program ends."""

    @functools.wraps(function)
    def counted(*arrays: Any) -> Any:
        with _calls:
            return function(*arrays)

    return tf.numpy_function(counted, inputs, types, stateful=stateful)


def numbered(batch: Any, start: int, stop: int, example: tuple[Any, ...]) -> tf.data.Dataset:
    """The batches `batch(start)` to `batch(stop - 1)`, tuples of arrays with the shapes and types of an example."""
    plain = tf.autograph.experimental.do_not_convert
    types = [array.dtype for array in example]

    @plain
    def compute(step: Any) -> Any:
        arrays = numpy_function(lambda step: list(batch(int(step))), [step], types, stateful=True)
        return tuple(tf.ensure_shape(array, like.shape) for array, like in zip(arrays, example))

    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    return tf.data.Dataset.range(start, stop).map(compute).prefetch(1).with_options(options)
