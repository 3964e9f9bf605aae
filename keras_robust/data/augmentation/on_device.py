"""Augmentation on the device, in `keras.ops`, inside a compiled step: for data in memory, without TensorFlow."""

from dataclasses import asdict
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust import backend, random
from keras_robust.checks import check_count
from keras_robust.data.augmentation import parameters
from keras_robust.data.augmentation.policy import Policy, find_policy
from keras_robust.types import Tensor

_NUMBERS = parameters.CROP + 1 + parameters.ERASE + parameters.MIX
# Of draws that belong to the same examples as others do.
_NOISE = 1


@keras.saving.register_keras_serializable("keras_robust")
class DeviceAugmentation:
    """Crop, flip, random erasing, mixup and cutmix of a whole batch, with static shapes, on any backend.

    The same formulas turn random numbers into boxes and shares here and in `TrainPipeline`, and the crop has the same
    filter: given the same numbers, pixels differ by the rounding to 8 bits that Pillow does twice (at most 1.5 / 255).
    The random numbers differ: here they come from `keys`, one for each example, so that a batch depends on nothing but
    them. RandAugment is left to the host: a policy with operations is refused. `TrainPipeline(on_device=True)` splits
    a policy into what its workers do and what is left to here, `Policy.device_part`, without a crop.

    Args:
        policy: "basic", or a `Policy` without operations.
        resolution: side of the result, in pixels.
        num_classes: width of the labels; needed where they come as class indices.

    Raises:
        ValueError: an argument is not as described.

    Example:
        >>> from dataclasses import replace
        >>> policy = replace(kr.data.HEAVY, operations=())
        >>> augment = kr.data.DeviceAugmentation(policy, 32, num_classes=10)
        >>> keys = kr.random.example_keys(seed=0, step=0, index=keras.ops.arange(8))
        >>> images, labels = augment((255 * x).astype("uint8"), y, keys)   # (8, 32, 32, 3), (8, 10)
    """

    def __init__(self, policy: str | Policy, resolution: int, num_classes: int | None = None) -> None:
        self.policy = find_policy(policy)
        if self.policy.operations:
            raise ValueError(
                "policy must have no RandAugment operations, which run in the input pipeline only: 'basic', "
                f"or dataclasses.replace(policy, operations=()); received {policy!r}."
            )
        self.resolution = check_count("resolution", resolution)
        self.num_classes = None if num_classes is None else check_count("num_classes", num_classes, least=2)

    def get_config(self) -> dict[str, Any]:
        return {"policy": asdict(self.policy), "resolution": self.resolution, "num_classes": self.num_classes}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DeviceAugmentation":
        return cls(**{**config, "policy": Policy(**config["policy"])})

    def __call__(self, images: Any, labels: Any, keys: tuple[Any, Any]) -> tuple[Any, Any]:
        """Augment a batch.

        Args:
            images: uint8 of shape (batch, height, width, channels), or floats in [0, 1].
            labels: class indices of shape (batch,), or soft labels of shape (batch, num_classes).
            keys: of `keras_robust.random.example_keys`.

        Returns:
            Images, float32 (batch, resolution, resolution, channels) in [0, 1], and soft labels, float32
            (batch, num_classes).
        """
        numbers = random.uniform(keys, ops.zeros((ops.shape(images)[0], _NUMBERS)))
        crop, flip, erase, mix = (numbers[:, start:stop] for start, stop in zip(_STARTS, (*_STARTS[1:], _NUMBERS)))
        flipped, labels = flip[:, 0] < self.policy.flip_probability, self._soft(labels)
        images = self._flip(images, flipped) if self.policy.crop_scale is None else self.crop(images, crop, flipped)
        if self.policy.erase_probability > 0:
            noise = random.normal(random.fold_in(keys, _NOISE), images)
            images = self.erase(images, erase, noise)
        if self.policy.mixes:
            images, labels = self.mix(images, labels, mix)
        return ops.clip(images, 0.0, 1.0), labels

    def crop(self, images: Tensor, numbers: Tensor, flip: Tensor) -> Tensor:
        """RandomResizedCrop, bicubic with antialiasing, mirrored where `flip` (batch,) holds; unclipped in the end.

        Along each axis it is a product with a matrix, whose rows are the filter of one pixel of the result.
        """
        pixels = _floats(images)
        height, width = images.shape[1:3]
        rows, columns = (ops.full_like(numbers[:, 0], float(length)) for length in (height, width))
        top, left, h, w = parameters.crop_box(
            numbers, rows, columns, self.policy.crop_scale, self.policy.aspect_ratio, ops
        )
        across = self._filters(left, w, width)
        across = ops.where(flip[:, None, None], ops.flip(across, axis=1), across)
        # Pillow's order: rows first, clipped in between.
        rows = ops.clip(ops.einsum("bsw,bhwc->bhsc", across, pixels), 0.0, 1.0)
        return ops.clip(ops.einsum("brh,bhsc->brsc", self._filters(top, h, height), rows), 0.0, 1.0)

    def _flip(self, images: Tensor, flip: Tensor) -> Tensor:
        """Images that were cropped before, as floats."""
        if tuple(images.shape[1:3]) != (self.resolution, self.resolution):
            raise ValueError(
                f"images must be of {self.resolution} x {self.resolution} pixels where policy.crop_scale is None; "
                f"received {images.shape[1]} x {images.shape[2]}."
            )
        pixels = _floats(images)
        if self.policy.flip_probability > 0:
            pixels = ops.where(flip[:, None, None, None], ops.flip(pixels, axis=2), pixels)
        return pixels

    def erase(self, images: Tensor, numbers: Tensor, noise: Tensor) -> Tensor:
        """Noise in one box of some images."""
        policy, side = self.policy, float(self.resolution)
        top, left, height, width = parameters.erase_box(
            numbers, side, policy.erase_probability, policy.erase_area, policy.erase_aspect_ratio, ops
        )
        return ops.where(self._inside(top, top + height, left, left + width), noise, images)

    def mix(self, images: Tensor, labels: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Mixup or cutmix, one for each group of images; all use the numbers of the first in their group.

        Groups are those of the global batch. Where a device sees a part of it that cuts a group, it is sent the rest.
        """
        count, size = images.shape[0], self.policy.group_size
        if count is not None and count % size == 0:
            index, everything = ops.arange(count, dtype="int32"), (images, labels, numbers)
        else:
            index = backend.example_index(ops.shape(images)[0])
            everything = tuple(map(backend.all_examples, (images, labels, numbers)))
        numbers = ops.take(everything[2], index // size * size, axis=0)
        partners = parameters.partner(index, ops.shape(everything[0])[0], size, ops)
        share, blend, box = parameters.mixture(numbers, float(self.resolution), self.policy, ops)
        others = ops.take(everything[0], partners, axis=0)
        mixed = others + blend[:, None, None, None] * (images - others)
        share = share[:, None]
        mixed_labels = share * labels + (1.0 - share) * ops.take(everything[1], partners, axis=0)
        return ops.where(self._inside(*box), others, mixed), mixed_labels

    def _soft(self, labels: Tensor) -> Tensor:
        if len(labels.shape) == 1:
            if self.num_classes is None:
                raise ValueError("num_classes must be given where labels are class indices; received None.")
            labels = ops.one_hot(ops.cast(labels, "int32"), self.num_classes)
        elif self.num_classes not in (None, labels.shape[1]):
            raise ValueError(f"labels must have {self.num_classes} classes; received shape {tuple(labels.shape)}.")
        smoothing = self.policy.label_smoothing
        return (1.0 - smoothing) * ops.cast(labels, "float32") + smoothing / labels.shape[1]

    def _filters(self, start: Tensor, length: Tensor, size: int) -> Tensor:
        """Matrices (batch, resolution, size): Keys' cubic filter with a = -0.5, widened where the crop is shrunk."""
        start, length = start[:, None, None], length[:, None, None]
        place = ops.array(np.arange(self.resolution, dtype="float32") + 0.5)[None, :, None]
        pixel = ops.array(np.arange(size, dtype="float32"))[None, None]
        scale = length / float(self.resolution)
        distance = ops.abs((pixel + 0.5 - start - place * scale) / ops.maximum(scale, 1.0))
        near = (1.5 * distance - 2.5) * distance * distance + 1.0
        far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
        weights = ops.where(distance < 1.0, near, ops.where(distance < 2.0, far, 0.0))
        weights = ops.where((pixel >= start) & (pixel < start + length), weights, 0.0)
        return weights / ops.sum(weights, axis=-1, keepdims=True)

    def _inside(self, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Booleans (batch, resolution, resolution, 1)."""
        place = ops.array(np.arange(self.resolution, dtype="float32"))[None]
        rows = (place >= top[:, None]) & (place < bottom[:, None])
        columns = (place >= left[:, None]) & (place < right[:, None])
        return (rows[:, :, None] & columns[:, None, :])[..., None]


def _floats(images: Tensor) -> Tensor:
    is_integer = "int" in keras.backend.standardize_dtype(images.dtype)
    return ops.cast(images, "float32") / (255.0 if is_integer else 1.0)


_STARTS = tuple(int(start) for start in np.cumsum([0, parameters.CROP, 1, parameters.ERASE]))
