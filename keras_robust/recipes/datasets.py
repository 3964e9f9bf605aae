"""Images for a run: batches of training from any step on, and batches of validation."""

from typing import Any

import keras
import numpy as np

from keras_robust import data
from keras_robust.data.pipeline import default_workers
from keras_robust.data.sampler import shard_slice


class TrainFeed:
    """Training batches of a recipe at one resolution.

    Attributes:
        augmentation: what the compiled step must do to them, or None.
        steps_per_epoch: micro-batches in one pass through the data.
    """

    def __init__(
        self, recipe: Any, source: Any, resolution: Any, num_classes: Any, seed: int, distribution: Any
    ) -> None:
        part = recipe.data
        workers = default_workers(distribution.neighbours) if part.workers is None else part.workers
        self.pipeline = data.TrainPipeline(
            source,
            part.policy,
            resolution,
            part.batch_size,
            num_classes,
            seed,
            distribution.shard,
            part.skip_corrupt,
            workers,
            part.engine,
            on_device=part.engine == "grain",
        )
        self.augmentation = self.pipeline.augmentation
        self.steps_per_epoch = self.pipeline.steps_per_epoch

    def batches(self, start_step: int, steps: int) -> Any:
        """Batches (images, labels) from one step of the run on, for `fit`."""
        return self.pipeline.dataset(start_step, steps)

    def close(self) -> None:
        """Ends the processes that read."""
        self.pipeline.close()


class ValidationFeed(keras.utils.PyDataset):
    """The same validation images at every validation, 8-bit in memory, as this process' part of float batches.

    `n_examples` are drawn once, and all of them count: batches are of one size, so that one compilation serves all,
    and what fills the last one has the weight 0.

    Attributes:
        n_examples: number of images that count.
        chance: accuracy of a model that answers the commonest class to everything.
        padded: n_examples and what fills the last batch, over n_examples: what Keras' mean loss is too small by.
    """

    def __init__(
        self, source: Any, n_examples: Any, resolution: Any, batch_size: Any, num_classes: Any, distribution: Any
    ) -> None:
        super().__init__()
        self.n_examples, self.shard = min(n_examples, len(source)), distribution.shard
        batches = -(-self.n_examples // batch_size)
        unit = distribution.devices
        self.batch_size = -(-self.n_examples // (batches * unit)) * unit
        self.padded = batches * self.batch_size / self.n_examples
        self.images, labels = source.sample(n_examples).arrays(resolution, seed=None)
        self.labels = np.eye(num_classes, dtype="float32")[labels]
        self.chance = float(np.bincount(labels).max() / len(labels))

    def is_chance(self, accuracy: float) -> bool:
        """Whether an accuracy, rounded as float32 is, is no more than that of one answer for all images."""
        return accuracy < self.chance + 0.5 / self.n_examples

    def __len__(self) -> int:
        return -(-self.n_examples // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = np.arange(index * self.batch_size, (index + 1) * self.batch_size)
        rows = rows[shard_slice(self.shard, self.batch_size)]
        weights = (rows < self.n_examples).astype("float32")
        rows = np.minimum(rows, self.n_examples - 1)
        return self.images[rows].astype("float32") / 255, self.labels[rows], weights

    def first(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """A few images, float in [0, 1], and their class indices."""
        return self.images[:count].astype("float32") / 255, self.labels[:count].argmax(1)
