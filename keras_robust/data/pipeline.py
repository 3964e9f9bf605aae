"""The input pipeline of training: from image files to augmented batches, by worker processes or on tf.data."""

import importlib.util
from typing import Any

import keras
import numpy as np

from keras_robust.backend.cluster import local_processes
from keras_robust.checks import check_choice, check_count, check_shard
from keras_robust.data.augmentation.on_device import DeviceAugmentation
from keras_robust.data.augmentation.policy import Policy, find_policy
from keras_robust.data.host_batches import MAX_STEPS, HostBatches
from keras_robust.data.sampler import Sampler
from keras_robust.data.sources import Source
from keras_robust.data.workers import Workers
from keras_robust.machine import share_of_cores

ENGINES = ("grain", "tf.data")
# Workers hold some batches each: 64 of them 25 GB at 640 images of 224 pixels.
MOST_BY_DEFAULT = 64


class TrainPipeline:
    """Batches of augmented images for training, from any source, for every backend of Keras.

    An endless stream, of which batch number s is the same bits wherever it was started from, in however many shards it
    is read and by however many workers: order and augmentations are a function of (seed, epoch, index in the source).

    Two engines compute it. `"grain"` has worker processes, which import neither Keras nor a framework, read each image
    by Pillow as evaluation does, and scale with the cores; it needs no TensorFlow. `"tf.data"` is a graph of KerasCV
    layers with threads, for TensorFlow; it crops JPEG files while it decodes them, so that pixels at a crop's border
    may differ by a few levels, and is bound by Python's lock at about a thousand images per second.

    Args:
        source: the images, e.g. `kr.data.source("imagenet", "train")`.
        policy: "heavy", "basic", or a `Policy`: see `POLICIES`.
        resolution: side of the images, in pixels.
        batch_size: of the global batch. An epoch leaves out the images that do not fill a batch, others each time.
        num_classes: width of the labels, if not the source's number of classes.
        seed: in [0, 2**31), of order and augmentations.
        shard: (i, n): read the i-th of n equal parts of each batch. Mixed labels and images are those of the whole
            batch; where the parts are multiples of `policy.group_size` (80), no image is read twice.
        skip_corrupt: replace an image that cannot be read by the next one of the source, and note it in `skipped`; if
            not, the batch's iterator raises an error with the file's name.
        workers: processes (threads of tf.data) to work with; if not given, as many as there are cores for each of the
            host's training processes, and at most 64. 0: none, each batch is computed when it is asked for, for
            notebooks and to look for errors.
        engine: "grain" or "tf.data"; if not given "grain", but on the TensorFlow backend where Grain is not installed.
        on_device: leave what is float to the device: batches are 8-bit images, a quarter of the bytes, and one-hot
            labels; random erasing, mixup or cutmix and label smoothing are then in `augmentation`, for
            `AdversarialModel(augmentation=...)`, which draws them by its own seed. With "grain" only.

    Attributes:
        augmentation: what is left to the device, a `DeviceAugmentation`; None without `on_device`.
        steps_per_epoch: batches in an epoch.
        skipped: from the names of replaced images to what was wrong with them.

    Raises:
        ValueError: an argument is not as described.
        ImportError: Grain is not installed; or, for "tf.data", TensorFlow or KerasCV.

    Example:
        >>> source = kr.data.source("photo_crops", "train")
        >>> train = kr.data.TrainPipeline(source, "heavy", 32, batch_size=8, workers=0, on_device=True)
        >>> net = keras.Sequential(
        ...     [keras.Input((None, None, 3)), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(10)]
        ... )
        >>> trainer = kr.AdversarialModel(net, attack, augmentation=train.augmentation)
        >>> trainer.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))
        >>> history = trainer.fit(train.dataset(), steps_per_epoch=2, verbose=0)
    """

    def __init__(
        self,
        source: Source,
        policy: str | Policy = "heavy",
        resolution: int = 224,
        batch_size: int = 80,
        num_classes: int | None = None,
        seed: int = 0,
        shard: tuple[int, int] = (1, 1),
        skip_corrupt: bool = False,
        workers: int | None = None,
        engine: str | None = None,
        on_device: bool = False,
    ) -> None:
        self.source, self.policy = source, find_policy(policy)
        if self.policy.crop_scale is None:
            raise ValueError("policy must crop: images of a source are of any size; received crop_scale=None.")
        self.resolution = check_count("resolution", resolution)
        self.batch_size = check_count("batch_size", batch_size)
        if batch_size > len(source):
            raise ValueError(f"batch_size must be at most the number of images, {len(source)}; received {batch_size}.")
        classes = len(source.class_names)
        self.num_classes = classes if num_classes is None else check_count("num_classes", num_classes, least=2)
        if self.num_classes < classes:
            raise ValueError(f"num_classes must be at least the source's {classes}; received {num_classes}.")
        self.seed = check_count("seed", seed, least=0)
        self.shard = check_shard("shard", shard)
        if batch_size % self.shard[1]:
            raise ValueError(
                f"batch_size must be a multiple of the number of shards, {self.shard[1]}; received {batch_size}."
            )
        self.skip_corrupt = skip_corrupt
        self.workers = (
            default_workers(local_processes()) if workers is None else check_count("workers", workers, least=0)
        )
        self.engine = _default_engine() if engine is None else check_choice("engine", engine, ENGINES)
        if on_device and self.engine != "grain":
            raise ValueError(f"on_device=True needs engine='grain'; received {self.engine!r}.")
        self.augmentation = (
            DeviceAugmentation(self.policy.device_part, resolution, self.num_classes) if on_device else None
        )
        self.skipped: dict[str, str] = {}
        self.sampler = self._sampler(self.policy.host_part if on_device else self.policy)
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self._host = HostBatches(source, self.sampler, self.num_classes, skip_corrupt, floats=not on_device)
        self._workers = Workers(self._host, self.workers) if self.engine == "grain" and self.workers else None

    def dataset(self, start_step: int = 0, steps: int | None = None) -> Any:
        """The batches from global step `start_step` on, endlessly or `steps` of them, for `fit`.

        Returns:
            On the TensorFlow backend and from "tf.data" a `tf.data.Dataset`, else a `keras.utils.PyDataset`, of
            (images, labels): float32 (batch_size / shards, resolution, resolution, 3) in [0, 1] and soft labels,
            float32 (batch_size / shards, num_classes). With `on_device`: uint8 and one-hot.
        """
        start_step = check_count("start_step", start_step, least=0)
        if steps is not None:
            check_count("steps", steps)
        if self.engine == "tf.data":
            from keras_robust.data import tf_data_graph

            stream = tf_data_graph.graph(self, start_step, max(self.workers, 1))
            return stream if steps is None else stream.take(steps)
        if keras.backend.backend() == "tensorflow":
            from keras_robust.data.tf_functions import numbered

            example = self._host.example()
            return numbered(self.batch, start_step, MAX_STEPS if steps is None else start_step + steps, example)
        return _Numbered(self.batch, start_step, steps)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch number `step`, as numpy arrays. Asked for in turn, the next ones are computed meanwhile.

        Example:
            >>> train = kr.data.TrainPipeline(kr.data.photo_crops("train"), "basic", 32, batch_size=8, workers=0)
            >>> images, labels = train.batch(1000)
            >>> images.shape, labels.shape
            ((8, 32, 32, 3), (8, 10))
        """
        computed = self._host[step] if self._workers is None else self._workers.batch(step)
        self.skipped.update(computed["skipped"])
        return computed["images"], computed["labels"]

    def finished(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch number `step` as floats with soft labels, computed here, whatever is left to the device otherwise."""
        host = HostBatches(self.source, self._sampler(self.policy), self.num_classes, self.skip_corrupt, floats=True)
        computed = host[step]
        return computed["images"], computed["labels"]

    def close(self) -> None:
        """Ends the worker processes. The program's end does so, too; a batch asked for later starts new ones."""
        if self._workers is not None:
            self._workers.close()

    def _sampler(self, policy: Policy) -> Sampler:
        return Sampler(len(self.source), self.batch_size, self.resolution, policy, self.seed, self.shard)


def default_workers(processes: int) -> int:
    """Workers for each of several training processes that run on this machine at once."""
    return min(share_of_cores(processes), MOST_BY_DEFAULT)


def _default_engine() -> str:
    without = keras.backend.backend() == "tensorflow" and not importlib.util.find_spec("grain")
    return "tf.data" if without else "grain"


class _Numbered(keras.utils.PyDataset):
    """Batches by their number, as a data set that begins at one of them."""

    def __init__(self, batch: Any, start_step: int, steps: int | None) -> None:
        super().__init__()
        self._batch, self._start_step, self._steps = batch, start_step, steps

    @property
    def num_batches(self) -> int | None:
        return self._steps

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self._steps is not None and index >= self._steps:
            raise IndexError(index)
        return self._batch(self._start_step + index)
