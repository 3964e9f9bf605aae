"""The input pipeline of training as a tf.data graph of KerasCV layers, in threads: for TensorFlow."""

import contextlib
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_robust.data.augmentation import image_ops
from keras_robust.data.host_batches import crop_box, readable_picture
from keras_robust.data.preprocessing import MAX_PIXELS
from keras_robust.data.sources import EncodedSource, ImageFolder
from keras_robust.types import Tensor

if TYPE_CHECKING:
    from keras_robust.data.pipeline import TrainPipeline

# What of `Sampler.examples` is done last, when images are floats.
_LATER = ("erase", "noise")
JPEG = b"\xff\xd8\xff"  # how such a file begins


def graph(pipeline: "TrainPipeline", start_step: int, threads: int) -> Any:
    """The batches of a pipeline from one step on, endlessly: see `TrainPipeline.dataset`."""
    tf = tensorflow()
    from keras_robust.data.augmentation.keras_cv_layers import MixUpOrCutMix, RandomResizedCrop, on_host

    sampler, policy, resolution = pipeline.sampler, pipeline.policy, pipeline.resolution
    crop, mix = RandomResizedCrop(resolution, policy), MixUpOrCutMix(policy)
    load = _loader(tf, pipeline, crop)
    shape = (resolution, resolution, 3)
    plain = tf.autograph.experimental.do_not_convert

    def resize_and_vary(image: Any, flip: Any, operations: Any, magnitudes: Any) -> Any:
        def change(picture: Any) -> Any:
            picture = image_ops.resize_and_flip(picture, resolution, flip)
            return image_ops.vary(picture, policy.operations, operations, magnitudes)

        return image_ops.by_pillow(image, change)

    @plain
    def augment(image: Any, label: Any, drawn: Any) -> Any:
        arguments = [image, drawn["flip"], drawn["operation"], drawn["magnitude"]]
        image = on_host(resize_and_vary, arguments, tf.TensorSpec(shape, tf.uint8))
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
        soft = tf.one_hot(labels["own"], pipeline.num_classes)
        if policy.mixes:
            soft = mix.share(soft, tf.one_hot(labels["other"], pipeline.num_classes), labels)
        return images, (1.0 - policy.label_smoothing) * soft + policy.label_smoothing / pipeline.num_classes

    steps = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
    slots = steps.map(plain(lambda step: _from_numpy(tf, sampler.examples, step))).unbatch()
    images = slots.interleave(load, cycle_length=threads, num_parallel_calls=threads)
    images = images.map(augment, num_parallel_calls=threads)
    if policy.mixes:
        batches = images.batch(len(sampler.positions), drop_remainder=True)
        images = tf.data.Dataset.zip(batches, steps).flat_map(pairs)
    images = images.map(finish, num_parallel_calls=threads)
    batches = images.batch(pipeline.batch_size // pipeline.shard[1], drop_remainder=True)
    batches = batches.map(soften).prefetch(2)
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.deterministic = True
    # Nothing is left to tune, and the thread that would tunes and sleeps on: an iterator waits for it at its end.
    options.autotune.enabled = False
    return batches.with_options(options)


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
        # TensorFlow's reader prints a line for each file that begins otherwise.
        begins = tf.strings.substr(content, 0, len(JPEG)) == JPEG
        with tf.control_dependencies([tf.debugging.Assert(begins, ["left to Pillow"])]):
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
    skipped = pipeline.skipped if pipeline.skip_corrupt else None
    picture, label = readable_picture(pipeline.source, int(index), skipped)
    box = crop_box(numbers, picture.height, picture.width, pipeline.policy)
    return np.asarray(image_ops.crop(picture, box)), np.int64(label)


def _from_numpy(tf: Any, function: Any, step: int) -> Any:
    """A function from a step to a dict of arrays of fixed shapes, in a graph."""
    from keras_robust.data.tf_functions import numpy_function

    example = function(0)
    types = [value.dtype for value in example.values()]
    values = numpy_function(lambda step: list(function(step).values()), [step], types)
    return {name: tf.ensure_shape(value, example[name].shape) for name, value in zip(example, values)}


def tensorflow() -> Any:
    try:
        import tensorflow as tf

        import keras_robust.data.augmentation.keras_cv_layers  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "engine='tf.data' and kr.data.layers run on TensorFlow and KerasCV, whatever Keras' backend: "
            "pip install 'keras-robust[tensorflow]'. engine='grain' needs neither."
        ) from error
    if keras.backend.backend() != "tensorflow":
        # Memory of the device belongs to the backend.
        with contextlib.suppress(RuntimeError):  # of a program that has used TensorFlow's devices before
            tf.config.set_visible_devices([], "GPU")
    return tf
