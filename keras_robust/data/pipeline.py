"""The input pipeline of training: from image files to augmented batches, on tf.data."""

import contextlib
from typing import Any

import keras
import numpy as np

from keras_robust.checks import check_count, check_shard
from keras_robust.data.augmentation import image_ops, parameters
from keras_robust.data.augmentation.policy import Policy, find_policy
from keras_robust.data.preprocessing import MAX_PIXELS
from keras_robust.data.sampler import Sampler
from keras_robust.data.sources import EncodedSource, ImageFolder, Source
from keras_robust.machine import available_cores
from keras_robust.types import Tensor

# What of `Sampler.examples` is done last, when images are floats.
_LATER = ("erase", "noise")
# After as many unreadable images in a row something else is wrong.
MAX_SKIPPED_IN_A_ROW = 100


class TrainPipeline:
    """Batches of augmented images for training, from any source, for every backend of Keras.

    An endless stream, of which batch number s is the same bits wherever it was started from and in however many shards
    it is read: order and augmentations are a function of (seed, epoch, index in the source). JPEG files are cropped
    while they are decoded; what else comes is decoded by Pillow, as in evaluation.

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
        workers: threads to work with; as many as there are cores if not given.

    Attributes:
        steps_per_epoch: batches in an epoch.
        skipped: from the names of replaced images to what was wrong with them.

    Raises:
        ValueError: an argument is not as described.
        ImportError: TensorFlow or KerasCV is not installed.

    Example:
        >>> train = kr.data.TrainPipeline(kr.data.source("photo_crops", "train"), "heavy", 32, batch_size=8)
        >>> net = keras.Sequential(
        ...     [keras.Input((None, None, 3)), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(10)]
        ... )
        >>> trainer = kr.AdversarialModel(net, attack)
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
    ) -> None:
        self.source, self.policy = source, find_policy(policy)
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
        self.workers = available_cores() if workers is None else check_count("workers", workers)
        self.skipped: dict[str, str] = {}
        self._sampler = Sampler(len(source), batch_size, resolution, self.policy, seed, self.shard)
        self.steps_per_epoch = self._sampler.steps_per_epoch

    def dataset(self, start_step: int = 0) -> Any:
        """The batches from global step `start_step` on, endlessly.

        Returns:
            tf.data.Dataset of (images, labels): float32 (batch_size / shards, resolution, resolution, 3) in [0, 1] and
            soft labels, float32 (batch_size / shards, num_classes).
        """
        tf = _tensorflow()
        from keras_robust.data.augmentation.keras_cv_layers import MixUpOrCutMix, RandomResizedCrop, on_host

        start_step = check_count("start_step", start_step, least=0)
        sampler, policy = self._sampler, self.policy
        crop, mix = RandomResizedCrop(self.resolution, policy), MixUpOrCutMix(policy)
        load = _loader(tf, self, crop)
        shape = (self.resolution, self.resolution, 3)
        plain = tf.autograph.experimental.do_not_convert

        @plain
        def augment(image: Any, label: Any, drawn: Any) -> Any:
            arguments = [image, drawn["flip"], drawn["operation"], drawn["magnitude"]]
            image = on_host(self._resize_and_vary, arguments, tf.TensorSpec(shape, tf.uint8))
            return {"images": image, "labels": label, **{name: drawn[name] for name in _LATER}}

        @plain
        def pairs(batch: int, step: int) -> Any:
            """Each image of the batch with its partner and how to mix the two."""
            mixture = _from_numpy(tf, sampler.mixtures, step)
            mixture = tf.nest.map_structure(lambda x: tf.gather(x, sampler.own), mixture)
            own = tf.nest.map_structure(lambda x: tf.gather(x, sampler.own), batch)
            others = tf.nest.map_structure(lambda x: tf.gather(x, sampler.partners[sampler.own]), batch)
            return tf.data.Dataset.from_tensor_slices((own, others, mixture))

        # Image by image, so that the workers share the arithmetic.
        @plain
        def finish(own: Any, other: Any = None, mixture: Any = None) -> Any:
            arguments, labels = [own["images"], *(own[name] for name in _LATER)], {"own": own["labels"]}
            if other is not None:
                arguments += [other["images"], *(other[name] for name in _LATER), mixture["blend"], mixture["box"]]
                labels |= {"other": other["labels"], "lambda": mixture["lambda"]}
            return on_host(_finish, arguments, tf.TensorSpec(shape, tf.float32)), labels

        @plain
        def soften(images: Tensor, labels: Tensor) -> Any:
            soft = tf.one_hot(labels["own"], self.num_classes)
            if policy.mixes:
                soft = mix.share(soft, tf.one_hot(labels["other"], self.num_classes), labels)
            return images, (1.0 - policy.label_smoothing) * soft + policy.label_smoothing / self.num_classes

        steps = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
        slots = steps.map(plain(lambda step: _from_numpy(tf, sampler.examples, step))).unbatch()
        images = slots.interleave(load, cycle_length=self.workers, num_parallel_calls=self.workers)
        images = images.map(augment, num_parallel_calls=self.workers)
        if policy.mixes:
            batches = images.batch(len(sampler.positions), drop_remainder=True)
            images = tf.data.Dataset.zip(batches, steps).flat_map(pairs)
        images = images.map(finish, num_parallel_calls=self.workers)
        batches = images.batch(self.batch_size // self.shard[1], drop_remainder=True)
        batches = batches.map(soften).prefetch(2)
        options = tf.data.Options()
        options.threading.private_threadpool_size = self.workers
        options.deterministic = True
        # Nothing is left to tune, and the thread that would tunes and sleeps on: an iterator waits for it at its end.
        options.autotune.enabled = False
        return batches.with_options(options)

    def _resize_and_vary(self, image: Any, flip: Any, operations: Any, magnitudes: Any) -> Any:
        def change(picture: Any) -> Any:
            picture = image_ops.resize_and_flip(picture, self.resolution, flip)
            return image_ops.vary(picture, self.policy.operations, operations, magnitudes)

        return image_ops.by_pillow(image, change)


def _finish(*arrays: Any) -> Any:
    """`image_ops.finish` of image, box and seed, and these of its partner with share and box of the mixture."""
    own, rest = arrays[:3], arrays[3:]
    return image_ops.finish(own, rest[:3], *rest[3:]) if rest else image_ops.finish(own)


def _loader(tf: Any, pipeline: Any, crop: Any) -> Any:
    """From a slot of a batch, `Sampler.examples`, to a data set of one element: cropped image, label, and the slot."""
    from keras_robust.data.tf_functions import numpy_function

    source = pipeline.source
    # TensorFlow reads files without Python's lock, and would wait for ever at a pipe.
    in_files = isinstance(source, ImageFolder) and source.all_regular
    labels, paths = (tf.constant(source.labels), tf.constant(source.paths)) if in_files else (None, None)
    plain = tf.autograph.experimental.do_not_convert

    def read(index: Any) -> Any:
        if paths is not None:
            return tf.io.read_file(tf.gather(paths, index)), tf.gather(labels, index)
        content, label = numpy_function(source.encoded_with_label, [index], (tf.string, tf.int64))
        return tf.ensure_shape(content, ()), tf.ensure_shape(label, ())

    @plain
    def jpeg(slot: Any) -> Any:
        content, label = read(slot["index"])
        height, width, channels = tf.unstack(tf.io.extract_jpeg_shape(content))
        exif = tf.strings.regex_full_match(content, rb"\C*Exif\x00\x00\C*")
        simple = (channels <= 3) & ~exif & (height * width <= MAX_PIXELS)
        with tf.control_dependencies([tf.debugging.Assert(simple, ["left to Pillow"])]):
            box = crop.box(slot["crop"], height, width)
        image = tf.io.decode_and_crop_jpeg(content, box, channels=3, dct_method="INTEGER_ACCURATE")
        return image, label, slot

    @plain
    def anything(slot: Any) -> Any:
        inputs, types = [slot["index"], slot["crop"]], (tf.uint8, tf.int64)
        image, label = numpy_function(lambda *inputs: _crop(pipeline, *inputs), inputs, types, stateful=True)
        return tf.ensure_shape(image, (None, None, 3)), tf.ensure_shape(label, ()), slot

    @plain
    def load(slot: Any) -> Any:
        slot = tf.data.Dataset.from_tensors(slot)
        if not isinstance(source, EncodedSource):
            return slot.map(anything)
        # Nothing in a graph can catch an error. What is no plain JPEG, or a corrupt one, fails here and is read again.
        return slot.map(jpeg).ignore_errors().concatenate(slot.map(anything)).take(1)

    return load


def _crop(pipeline: Any, index: Any, numbers: Any) -> Any:
    """The random crop of an image of any kind, or of the next one that can be read, and its label."""
    source, policy = pipeline.source, pipeline.policy
    for tried in range(MAX_SKIPPED_IN_A_ROW):
        index = (index + min(tried, 1)) % len(source)
        try:
            image = source.image(index)
        except ValueError as error:
            if not pipeline.skip_corrupt:
                raise
            pipeline.skipped[source.name(index)] = str(error)
            continue
        rows, columns = (np.float32(length) for length in image.shape[:2])
        box = parameters.crop_box(numbers, rows, columns, policy.crop_scale, policy.aspect_ratio, np)
        top, left, height, width = (int(edge) for edge in box)
        return np.ascontiguousarray(image[top : top + height, left : left + width]), np.int64(source.label(index))
    raise ValueError(f"{MAX_SKIPPED_IN_A_ROW} images in a row cannot be read, the last is {source.name(index)}.")


def _from_numpy(tf: Any, function: Any, step: int) -> Any:
    """A function from a step to a dict of arrays of fixed shapes, in a graph."""
    from keras_robust.data.tf_functions import numpy_function

    example = function(0)
    types = [value.dtype for value in example.values()]
    values = numpy_function(lambda step: list(function(step).values()), [step], types)
    return {name: tf.ensure_shape(value, example[name].shape) for name, value in zip(example, values)}


def _tensorflow() -> Any:
    try:
        import tensorflow as tf

        import keras_robust.data.augmentation.keras_cv_layers  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "The input pipeline runs on TensorFlow and KerasCV, whatever Keras' backend: "
            "pip install 'keras-robust[tensorflow]'. Without them: kr.data.DeviceAugmentation."
        ) from error
    if keras.backend.backend() != "tensorflow":
        # Memory of the device belongs to the backend.
        with contextlib.suppress(RuntimeError):  # of a program that has used TensorFlow's devices before
            tf.config.set_visible_devices([], "GPU")
    return tf
