"""Batches of a training pipeline as a function of the step, by numpy and Pillow: what its worker processes compute.

Imports neither Keras nor a framework.
"""

from typing import Any

import numpy as np

from keras_robust.data.augmentation import image_ops, parameters
from keras_robust.data.augmentation.policy import Policy
from keras_robust.data.preprocessing import decode_picture, pillow
from keras_robust.data.sampler import Sampler
from keras_robust.data.sources import EncodedSource, Source

# After as many unreadable images in a row something else is wrong.
MAX_SKIPPED_IN_A_ROW = 100
MAX_STEPS = 2**40


class HostBatches:
    """A sequence of batches, each a pure function of its number; for Grain, a source of random access.

    Args:
        source: the images.
        sampler: which of them a step takes, and what is drawn for each.
        num_classes: width of the labels.
        skip_corrupt: replace images that cannot be read by the next ones.
        floats: do all that the sampler's policy says, in floats. If not, what is done to 8-bit pixels: the policy must
            then hold no more (`Policy.host_part`).

    An item is a dict: `images`, uint8 (n, resolution, resolution, 3), or float32 in [0, 1]; `labels`, float32
    (n, num_classes), one-hot or soft; `skipped`, from the names of replaced images to what was wrong with them.
    """

    def __init__(self, source: Source, sampler: Sampler, num_classes: int, skip_corrupt: bool, floats: bool) -> None:
        self.source, self.sampler, self.num_classes = source, sampler, num_classes
        self.skip_corrupt, self.floats = skip_corrupt, floats

    def __len__(self) -> int:
        return MAX_STEPS

    def __getitem__(self, step: int) -> dict[str, Any]:
        sampler = self.sampler
        skipped: dict[str, str] = {}
        slots = sampler.examples(step)
        count, side = len(slots["index"]), sampler.resolution
        images = np.empty((count, side, side, 3), np.uint8)
        classes = np.empty(count, np.int64)
        for place in range(count):
            found = skipped if self.skip_corrupt else None
            picture, classes[place] = readable_picture(self.source, int(slots["index"][place]), found)
            box = crop_box(slots["crop"][place], picture.height, picture.width, sampler.policy)
            picture = image_ops.resize_and_flip(image_ops.crop(picture, box), side, slots["flip"][place])
            drawn = slots["operation"][place], slots["magnitude"][place]
            images[place] = image_ops.vary(picture, sampler.policy.operations, *drawn)
        labels = np.eye(self.num_classes, dtype=np.float32)[classes]
        if self.floats:
            images, labels = self._finish(step, slots, images, labels)
        return {"images": images, "labels": labels, "skipped": skipped}

    def example(self) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of the shapes and types of a batch."""
        count, side = len(self.sampler.own), self.sampler.resolution
        images = np.zeros((count, side, side, 3), np.float32 if self.floats else np.uint8)
        return images, np.zeros((count, self.num_classes), np.float32)

    def _finish(
        self, step: int, slots: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """This shard's own images, erased, mixed and clipped, and their soft labels."""
        sampler, smoothing = self.sampler, self.sampler.policy.label_smoothing
        erased = [image_ops.erase(*each) for each in zip(images, slots["erase"], slots["noise"])]
        finished = np.empty((len(sampler.own), *images.shape[1:]), np.float32)
        soft = labels[sampler.own]
        if sampler.policy.mixes:
            mixture = sampler.mixtures(step)
            share = mixture["lambda"][sampler.own, None]
            soft = share * soft + (1.0 - share) * labels[sampler.partners[sampler.own]]
        for place, own in enumerate(sampler.own):
            np.copyto(finished[place], erased[own])
            if sampler.policy.mixes:
                other = erased[sampler.partners[own]]
                image_ops.mix(finished[place], other, mixture["blend"][own], mixture["box"][own])
        return np.clip(finished, 0.0, 1.0, out=finished), (1.0 - smoothing) * soft + smoothing / self.num_classes


def readable_picture(source: Source, index: int, skipped: dict[str, str] | None) -> tuple[Any, int]:
    """An image as a Pillow image in RGB, and its label; where `skipped` is a dict, the next one that can be read.

    Raises:
        ValueError: an image that cannot be read, by its file's name; or, with `skipped`, too many in a row.
    """
    for _ in range(MAX_SKIPPED_IN_A_ROW):
        try:
            if isinstance(source, EncodedSource):
                content, label = source.encoded_with_label(index)
                return decode_picture(content, source.name(index)), label
            return pillow()[0].fromarray(source.image(index)), source.label(index)
        except (ValueError, OSError) as error:
            if skipped is None:
                name = source.name(index)
                if isinstance(error, OSError) or name not in str(error):
                    raise ValueError(f"{name} cannot be read: {error}") from error
                raise
            skipped[source.name(index)] = str(error)
            index = (index + 1) % len(source)
    raise ValueError(f"{MAX_SKIPPED_IN_A_ROW} images in a row cannot be read, the last is {source.name(index - 1)}.")


def crop_box(numbers: np.ndarray, height: int, width: int, policy: Policy) -> tuple[int, ...]:
    """top, left, height and width of the random crop of an image of that size."""
    rows, columns = np.float32(height), np.float32(width)
    box = parameters.crop_box(numbers, rows, columns, policy.crop_scale, policy.aspect_ratio, np)
    return tuple(int(edge) for edge in box)
