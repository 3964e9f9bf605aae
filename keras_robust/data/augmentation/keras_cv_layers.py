"""Augmentations as KerasCV layers, for one image or a batch: `{"images", "labels"}` in, the same out.

They are layers of KerasCV's interface, so that they mix with KerasCV's own, whose randomness cannot be used here: it
comes from one stateful generator, so that an image's augmentation depends on what other threads drew before. Here it
depends on `"seeds"` of the inputs alone, int32 (2,) for each image; without, a layer draws seeds as KerasCV's do. The
input pipeline passes what was drawn instead, `"transformations"` (`Sampler.examples`). Their public place is
`kr.data.layers`.

The only module that imports keras_cv, which works in TensorFlow whatever Keras' backend is.
"""

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import keras
import keras_cv
import numpy as np
import tensorflow as tf

from keras_robust.checks import check_count
from keras_robust.data.augmentation import image_ops, parameters
from keras_robust.data.augmentation.policy import HEAVY, Policy, find_policy
from keras_robust.data.tf_functions import numpy_function
from keras_robust.types import Tensor

# What `draws` asks for by numpy's names. (tensorflow.experimental.numpy cannot round in a graph.)
NUMPY_NAMES = SimpleNamespace(
    abs=tf.abs,
    array=tf.constant,
    exp=tf.exp,
    floor=tf.floor,
    full_like=lambda like, value: tf.fill(tf.shape(like), tf.cast(value, like.dtype)),
    log=tf.math.log,
    max=tf.reduce_max,
    maximum=tf.maximum,
    minimum=tf.minimum,
    ones_like=tf.ones_like,
    round=tf.round,
    sqrt=tf.sqrt,
    sum=tf.reduce_sum,
    where=tf.where,
    zeros_like=tf.zeros_like,
)


class OfPolicy:
    """What the layers have in common: a policy, and a configuration that holds it.

    Attributes:
        stream: number of the layer's own random numbers, so that layers that are given the same seeds draw others.
    """

    stream = 0

    def __init__(self, policy: str | Policy = HEAVY, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed=seed, **{"dtype": "float32", **kwargs})  # type: ignore[call-arg]
        self.policy, self._seed = find_policy(policy), seed

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "policy": asdict(self.policy), "seed": self._seed}  # type: ignore[misc]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**{**config, "policy": Policy(**config["policy"])})

    def uniform(self, seed: Any, count: int) -> Any:
        """`count` numbers in [0, 1) from a seed, int32 (2,), of the inputs; those of this layer alone."""
        for number in (self.stream, self._seed or 0):
            seed = tf.random.experimental.stateless_fold_in(seed, number)
        return tf.random.stateless_uniform([count], seed, alg="philox")


class StatelessLayer(OfPolicy, keras_cv.layers.BaseImageAugmentationLayer):
    """A layer whose draws depend on the inputs' `"seeds"` alone.

    A subclass says how many uniform numbers an image takes (`numbers`) and what becomes of them (`draw`); the rest is
    KerasCV's: `augment_image`, `augment_label`.
    """

    numbers = 0

    def draw(self, numbers: Any) -> Any:
        """From `numbers` in [0, 1), shape (self.numbers,), to what `augment_image` takes."""
        raise NotImplementedError(f"{type(self).__name__} has no draw()")

    def get_random_transformation(self, seed: int | None = None, **kwargs: Any) -> Any:
        if seed is None:
            seed = self._random_generator.uniform_full_int([2], dtype=tf.int32)
        return self.draw(self.uniform(seed, self.numbers))

    def output_spec(self, images: Tensor) -> Any:
        """Type and shape of an output image."""
        return tf.TensorSpec(images.shape[-3:], images.dtype)

    def _ensure_inputs_are_compute_dtype(self, inputs: Any) -> Any:
        return tf.nest.map_structure(tf.convert_to_tensor, inputs)  # 8 bits stay 8 bits

    def _augment(self, inputs: Any) -> Any:
        drawn = inputs.get("transformations")
        if drawn is None:
            drawn = self.get_random_transformation(seed=inputs.get("seeds"))
        return {**inputs, "images": self.augment_image(inputs["images"], drawn)}

    def _batch_augment(self, inputs: Any) -> Any:
        specs = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape[1:], x.dtype), inputs)
        specs["images"] = self.output_spec(inputs["images"])
        return tf.map_fn(self._augment, inputs, fn_output_signature=specs)


@keras.saving.register_keras_serializable("keras_robust")
class RandomResizedCrop(StatelessLayer):
    """A random crop (`policy.crop_scale`, `aspect_ratio`), resized by Pillow's bicubic filter, mirrored at random.

    uint8 images of shape (height, width, 3) or (batch, height, width, 3) become uint8 ones of side `resolution`.
    KerasCV's RandomCropAndResize draws the ratio uniformly, not its logarithm, and resizes without antialiasing.

    Args:
        resolution: side of the result, in pixels.
        policy: "heavy", "basic", or a `kr.data.Policy`.
        seed: of the generator for inputs without `"seeds"`; with these, layers of other seeds draw other numbers.

    Raises:
        ValueError: an argument is not as described.

    Example:
        >>> photos = {"images": (255 * x).astype("uint8"), "labels": y}
        >>> tuple(kr.data.layers.RandomResizedCrop(24)(photos)["images"].shape)
        (8, 24, 24, 3)
    """

    numbers, stream = parameters.CROP + 1, 1

    def __init__(self, resolution: int, policy: str | Policy = HEAVY, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(policy, seed, **kwargs)
        if self.policy.crop_scale is None:
            raise ValueError("policy must crop; received crop_scale=None.")
        self.resolution = check_count("resolution", resolution)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "resolution": self.resolution}

    def draw(self, numbers: Any) -> Any:
        return {"crop": numbers[:-1], "flip": numbers[-1] < self.policy.flip_probability}

    def box(self, numbers: Any, height: Any, width: Any) -> Any:
        """top, left, height and width of the crop, int32 (4,), in an image of that size."""
        rows, columns = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
        return tf.cast(
            tf.stack(
                parameters.crop_box(
                    numbers, rows, columns, self.policy.crop_scale, self.policy.aspect_ratio, NUMPY_NAMES
                )
            ),
            tf.int32,
        )

    def augment_image(self, image: Any, transformation: Any, **kwargs: Any) -> Any:
        shape = tf.shape(image)
        top, left, height, width = tf.unstack(self.box(transformation["crop"], shape[0], shape[1]))
        spec = self.output_spec(image)
        return on_host(
            _resize, [image[top : top + height, left : left + width], spec.shape[0], transformation["flip"]], spec
        )

    def output_spec(self, images: Tensor) -> Any:
        return tf.TensorSpec((self.resolution, self.resolution, 3), tf.uint8)


@keras.saving.register_keras_serializable("keras_robust")
class RandAugment(StatelessLayer):
    """`policy.n_operations` operations, drawn with replacement, each applied at random: `randaugment.py`.

    uint8 images of shape (height, width, 3), or a batch of them, stay such.

    Args:
        policy, seed: see `RandomResizedCrop`.

    Example:
        >>> photos = {"images": (255 * x).astype("uint8"), "labels": y}
        >>> varied = kr.data.layers.RandAugment("heavy", seed=1)(photos)["images"]
        >>> tuple(varied.shape), keras.backend.standardize_dtype(varied.dtype)
        ((8, 16, 16, 3), 'uint8')
    """

    stream = 2

    @property
    def numbers(self) -> Any:  # type: ignore[override]
        return parameters.OPERATION * self.policy.n_operations

    def draw(self, numbers: Any) -> Any:
        def choose(numbers: Any) -> Any:
            which, magnitude, sign = parameters.operations(numbers, self.policy)
            return which, (sign * magnitude).astype("float32")

        shape = (self.policy.n_operations,)
        which, magnitude = numpy_function(
            choose, [tf.reshape(numbers, (*shape, parameters.OPERATION))], [tf.int32, tf.float32]
        )
        return {"operation": tf.ensure_shape(which, shape), "magnitude": tf.ensure_shape(magnitude, shape)}

    def augment_image(self, image: Any, transformation: Any, **kwargs: Any) -> Any:
        def vary(image: Any, *drawn: Any) -> Any:
            return image_ops.by_pillow(image, lambda picture: image_ops.vary(picture, self.policy.operations, *drawn))

        return on_host(vary, [image, transformation["operation"], transformation["magnitude"]], self.output_spec(image))


@keras.saving.register_keras_serializable("keras_robust")
class RandomErasing(StatelessLayer):
    """One box of standard normal noise, pixel by pixel: `erase_probability`, `erase_area` and `erase_aspect_ratio`.

    Takes uint8 images, square ones, and returns float32 ones in units of [0, 1], of which the noise is not clipped:
    that is left to the end, after mixing (`tf.clip_by_value(images, 0, 1)`). KerasCV's RandomCutout has no distribution
    of areas and ratios.

    Args:
        policy, seed: see `RandomResizedCrop`.

    Example:
        >>> photos = {"images": (255 * x).astype("uint8"), "labels": y}
        >>> erased = kr.data.layers.RandomErasing("heavy", seed=1)(photos)["images"]
        >>> keras.backend.standardize_dtype(erased.dtype)
        'float32'
    """

    numbers, stream = parameters.ERASE + 2, 3

    def draw(self, numbers: Any) -> Any:
        return {"erase": numbers[:-2], "noise": tf.cast(numbers[-2:] * 2.0**31, tf.int32)}

    def augment_image(self, image: Any, transformation: Any, **kwargs: Any) -> Any:
        box = transformation["erase"]
        if box.dtype != tf.int32:
            policy = self.policy
            box = parameters.erase_box(
                box,
                float(image.shape[0]),
                policy.erase_probability,
                policy.erase_area,
                policy.erase_aspect_ratio,
                NUMPY_NAMES,
            )
            box = tf.cast(tf.stack(box), tf.int32)
        return on_host(image_ops.erase, [image, box, transformation["noise"]], self.output_spec(image))

    def output_spec(self, images: Tensor) -> Any:
        return tf.TensorSpec(images.shape[-3:], tf.float32)


@keras.saving.register_keras_serializable("keras_robust")
class MixUpOrCutMix(OfPolicy, keras_cv.layers.VectorizedBaseImageAugmentationLayer):
    """Mix each image and its soft label with its partner's, one lambda per group (`policy`, `parameters.mixture`).

    Takes batches: float32 `"images"` of shape (batch, side, side, 3) and soft `"labels"`, float32 (batch, classes). An
    image's partner is its mirror image in the order of its group of `policy.group_size`, whose `"seeds"` are those of
    its first image. KerasCV's MixUp and CutMix draw a lambda for each image and shuffle the partners.

    The input pipeline also gives `"partners"`, int32 positions in the batch, and `"transformations"`, as
    `Sampler.mixtures` does.

    Args:
        policy, seed: see `RandomResizedCrop`.

    Example:
        >>> photos = {"images": x, "labels": np.eye(5, dtype="float32")[y]}
        >>> mixed = kr.data.layers.MixUpOrCutMix("heavy", seed=1)(photos)
        >>> mixed["labels"].numpy().sum(axis=1).round(5).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """

    stream = 4

    def _ensure_inputs_are_compute_dtype(self, inputs: Any) -> Any:
        inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
        kind = inputs["images"].dtype.name
        if kind != "float32":  # which KerasCV would convert, 255 and all
            raise ValueError(f"images must be float32 in [0, 1], as RandomErasing gives them; received {kind}.")
        return {**inputs, "labels": tf.cast(inputs["labels"], tf.float32)}

    def get_random_transformation_batch(
        self, batch_size: Any, images: Tensor, seeds: Tensor = None, **kwargs: Any
    ) -> dict[str, Any]:
        size = self.policy.group_size
        groups = -(-batch_size // size)
        if seeds is None:
            numbers = self._random_generator.uniform([groups, parameters.MIX])
        else:
            spec = tf.TensorSpec([parameters.MIX], tf.float32)
            numbers = tf.map_fn(
                lambda seed: self.uniform(seed, parameters.MIX), seeds[::size], fn_output_signature=spec
            )
        numbers = tf.repeat(numbers, size, axis=0)[:batch_size]
        share, blend, box = parameters.mixture(numbers, float(images.shape[1]), self.policy, NUMPY_NAMES)
        return {"lambda": share, "blend": blend, "box": tf.cast(tf.stack(box, axis=-1), tf.int32)}

    def _batch_augment(self, inputs: Any) -> Any:
        images, labels, drawn = inputs["images"], inputs["labels"], inputs.get("transformations")
        count = tf.shape(images)[0]
        if drawn is None:
            drawn = self.get_random_transformation_batch(count, images=images, seeds=inputs.get("seeds"))
        partners = inputs.get("partners")
        if partners is None:
            partners = parameters.partner(tf.range(count), count, self.policy.group_size, NUMPY_NAMES)
        return {
            **inputs,
            "images": self.augment_images(images, {**drawn, "partners": partners}),
            "labels": self.augment_labels(labels, {**drawn, "partners": partners}),
        }

    def augment_images(self, images: Tensor, transformations: Any, **kwargs: Any) -> Any:
        others = tf.gather(images, transformations["partners"])
        numbers = (transformations[name] for name in ("blend", "box"))
        return on_host(_mix, [images, others, *numbers], tf.TensorSpec(images.shape, tf.float32))

    def augment_labels(self, labels: Tensor, transformations: Any, **kwargs: Any) -> Any:
        return self.share(labels, tf.gather(labels, transformations["partners"]), transformations)

    def share(self, labels: Tensor, others: Any, mixture: Any) -> Any:
        """Soft labels mixed by `"lambda"`."""
        share = mixture["lambda"][..., None]
        return share * labels + (1.0 - share) * others


def on_host(function: Any, inputs: Any, spec: Any) -> Any:
    """`function` from numpy arrays to one of this type and shape, in a graph."""
    return tf.ensure_shape(numpy_function(function, inputs, spec.dtype), spec.shape)


def _resize(image: Any, resolution: Any, flip: Any) -> Any:
    return image_ops.by_pillow(image, lambda picture: image_ops.resize_and_flip(picture, resolution, flip))


def _mix(images: Tensor, *others: Any) -> Any:
    return np.stack([image_ops.mix(image.copy(), *each) for image, *each in zip(images, *others)])
