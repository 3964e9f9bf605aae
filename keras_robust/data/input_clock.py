"""Clock of the time that a training waits for its input."""

import time
from typing import Any

import keras


class InputClock:
    """Measures the time between asking a data set for a batch and getting it, whoever asks.

    Attributes:
        waited: seconds, since the last `reset`.
        batches: how many have been asked for since then.

    Example:
        >>> clock = InputClock()
        >>> history = trainer.fit(clock.timed(dataset), steps_per_epoch=2, verbose=0)
        >>> clock.waited > 0
        True
    """

    def __init__(self) -> None:
        self._asked = time.perf_counter()
        self.reset()

    def reset(self) -> None:
        self.waited, self.batches = 0.0, 0

    def ask(self) -> None:
        """Notes that a batch is asked for."""
        self._asked = time.perf_counter()

    def get(self) -> None:
        """Notes that it has come."""
        self.waited += time.perf_counter() - self._asked
        self.batches += 1

    def share(self, seconds_per_step: float | None) -> float | None:
        """The share of the time since `reset` that was spent waiting; None where it is not known."""
        if not self.batches or not seconds_per_step:
            return None
        return min(self.waited / (self.batches * seconds_per_step), 1.0)

    def timed(self, dataset: Any) -> Any:
        """The same `tf.data.Dataset` or PyDataset, timed; anything else, which is not timed, as it is."""
        if isinstance(dataset, keras.utils.PyDataset):
            return _Timed(dataset, self)
        try:
            import tensorflow as tf

            from keras_robust.data.tf_functions import numpy_function
        except ImportError:
            return dataset
        if not isinstance(dataset, tf.data.Dataset):
            return dataset
        plain = tf.autograph.experimental.do_not_convert

        def asked(count: Any) -> Any:
            self.ask()
            return count

        def got(count: Any) -> Any:
            self.get()
            return count

        # A zip asks its parts one after the other, so the first is asked when the batch is.
        asks = tf.data.Dataset.counter().map(plain(lambda count: numpy_function(asked, [count], tf.int64, True)))

        @plain
        def mark(count: Any, *batch: Any) -> Any:
            with tf.control_dependencies([numpy_function(got, [count], tf.int64, True)]):
                return tf.nest.map_structure(tf.identity, batch[0] if len(batch) == 1 else batch)

        options = tf.data.Options()
        options.experimental_optimization.map_parallelization = False
        options.experimental_optimization.inject_prefetch = False
        return tf.data.Dataset.zip((asks, dataset)).map(mark).with_options(options)


class _Timed(keras.utils.PyDataset):
    def __init__(self, batches: keras.utils.PyDataset, clock: InputClock) -> None:
        super().__init__()
        self._batches, self._clock = batches, clock

    @property
    def num_batches(self) -> int | None:
        return self._batches.num_batches

    def __getitem__(self, index: int) -> Any:
        self._clock.ask()
        batch = self._batches[index]
        self._clock.get()
        return batch
