"""Images for a run: batches of training from any step on, and batches of validation."""

from typing import Any

import keras
import numpy as np

from keras_robust import data
from keras_robust.data.sampler import shard_slice

# What an image in memory is larger than the training resolution by, so that random crops have something to choose from.
MARGIN = 8 / 7  # 256 for 224


class TrainFeed:
    """Training batches of a recipe at one resolution.

    Attributes:
        augmentation: what the compiled step must do to them, or None.
        steps_per_epoch: micro-batches in one pass through the data.
    """

    def __init__(
        self, recipe: Any, source: Any, resolution: Any, num_classes: Any, seed: int, shard: Any = (1, 1)
    ) -> None:
        part = recipe.data
        options = {"batch_size": part.batch_size, "num_classes": num_classes, "seed": seed, "shard": shard}
        self.augmentation: data.DeviceAugmentation | None = None
        self.pipeline: ArrayBatches | data.TrainPipeline
        if part.on_device:
            self.pipeline = ArrayBatches(source, round(resolution * MARGIN), **options)
            self.augmentation = data.DeviceAugmentation(part.policy, resolution, num_classes)
        else:
            self.pipeline = data.TrainPipeline(
                source, part.policy, resolution, skip_corrupt=part.skip_corrupt, **options
            )
        self.steps_per_epoch = self.pipeline.steps_per_epoch

    def batches(self, start_step: Any) -> Any:
        """An endless stream of batches (images, soft labels) from one step of the run on, for `fit`."""
        return self.pipeline.dataset(start_step)


class ArrayBatches:
    """Batches of 8-bit images held in memory, in an order that depends on (seed, epoch) alone; needs no TensorFlow.

    Args:
        source: a `kr.data.Source`.
        resolution: side of the images, centre crops.
        batch_size, num_classes, seed, shard: as of `kr.data.TrainPipeline`.
    """

    def __init__(
        self, source: Any, resolution: Any, batch_size: Any, num_classes: Any, seed: int = 0, shard: Any = (1, 1)
    ) -> None:
        if batch_size > len(source):
            raise ValueError(f"batch_size must be at most the number of images, {len(source)}; received {batch_size}.")
        if batch_size % shard[1]:
            raise ValueError(f"batch_size must be a multiple of the number of shards; received {batch_size}.")
        self.images, labels = source.arrays(resolution, crop_pct=1.0, seed=None)
        self.labels = np.eye(num_classes, dtype="float32")[labels]
        self.batch_size, self.seed, self.shard = batch_size, seed, shard
        self.steps_per_epoch = len(source) // batch_size

    def dataset(self, start_step: int = 0) -> Any:
        """Batches (uint8 images, one-hot labels) from global step `start_step` on, endlessly."""
        return _Stream(self, start_step)

    def batch(self, step: int) -> Any:
        """Batch number `step` of the run: this shard's part."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.images))
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
        chosen = chosen[shard_slice(self.shard, len(chosen))]
        return self.images[chosen], self.labels[chosen]


class _Stream(keras.utils.PyDataset):
    def __init__(self, batches: Any, start_step: Any) -> None:
        super().__init__()
        self._batches, self._start_step = batches, start_step

    @property
    def num_batches(self) -> Any:
        return None  # endless

    def __getitem__(self, index: Any) -> Any:
        return self._batches.batch(self._start_step + index)


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
