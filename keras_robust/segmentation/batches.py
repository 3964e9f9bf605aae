"""Batches of augmented images with their masks, for training on any backend."""

from typing import Any

import keras
import numpy as np

from keras_robust.checks import check_count, check_number
from keras_robust.data.preprocessing import pillow
from keras_robust.dense_labels import IGNORED
from keras_robust.segmentation.sources import MaskSource, resized

ORDER = 2**63  # beside the keys of examples


class MaskBatches(keras.utils.PyDataset):
    """Batches (images, labels) of a source, image and mask flipped, scaled and cropped alike.

    What an epoch holds is a function of (seed, epoch, place in the source): a run that goes on at `first_epoch` meets
    the batches that an uninterrupted one would. An epoch leaves out the images that do not fill a batch, others each
    time.

    Args:
        source: images and masks, a `MaskSource` or any sequence of pairs.
        size: (height, width) of the crops, in pixels.
        batch_size: images per batch.
        scale: bounds of the random scale, uniform; at 1 an image just covers a crop. What a smaller image leaves free
            is black, and does not count.
        flip_probability: of mirroring left to right.
        blur_probability: of a Gaussian blur, with a radius uniform in [0, 1] pixels.
        seed: in [0, 2**31).
        first_epoch: of `fit`, as its `initial_epoch`.

    Raises:
        ValueError: an argument is not as described.

    Example:
        >>> pairs = [(np.zeros((40, 60, 3), "uint8"), np.zeros((40, 60), "int32"))] * 4
        >>> images, labels = MaskBatches(pairs, size=(32, 48), batch_size=2)[0]
        >>> images.shape, labels.shape
        ((2, 32, 48, 3), (2, 32, 48))
    """

    def __init__(
        self,
        source: MaskSource | Any,
        size: tuple[int, int],
        batch_size: int,
        scale: tuple[float, float] = (0.5, 2.0),
        flip_probability: float = 0.5,
        blur_probability: float = 0.5,
        seed: int = 0,
        first_epoch: int = 0,
    ) -> None:
        super().__init__()  # one worker: the next epoch begins when this one has ended
        self.source = source
        self.size = (check_count("size", size[0]), check_count("size", size[1]))
        self.batch_size = check_count("batch_size", batch_size)
        if self.batch_size > len(source):
            raise ValueError(f"batch_size must be at most the number of images, {len(source)}; received {batch_size}.")
        self.scale = (check_number("scale", scale[0]), check_number("scale", scale[1]))
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be a pair 0 < low <= high; received {scale!r}.")
        self.flip_probability = check_number("flip_probability", flip_probability)
        self.blur_probability = check_number("blur_probability", blur_probability)
        self.seed = check_count("seed", seed, least=0)
        self.epoch = check_count("first_epoch", first_epoch, least=0)

    def __len__(self) -> int:
        return len(self.source) // self.batch_size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Images, float32 in [0, 1], and labels, int32, of a batch of this epoch."""
        order = np.argsort(self._random(ORDER + self.epoch).random(len(self.source)), kind="stable")
        rows = order[index * self.batch_size : (index + 1) * self.batch_size]
        pairs = [self._augmented(int(row)) for row in rows]
        images = np.stack([image for image, _ in pairs])
        return images.astype("float32") / np.float32(255), np.stack([mask for _, mask in pairs])

    def on_epoch_end(self) -> None:
        self.epoch += 1

    def _random(self, key: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=np.array([self.seed, key], np.uint64)))

    def _augmented(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Image, uint8 (height, width, 3), and mask of an example of this epoch."""
        flip, scale, top, left, blur, radius = self._random(self.epoch * len(self.source) + row).random(6)
        image, mask = self.source[row]
        if flip < self.flip_probability:
            image, mask = image[:, ::-1], mask[:, ::-1]
        scale = self.scale[0] + (self.scale[1] - self.scale[0]) * scale
        factor = scale * max(crop / full for crop, full in zip(self.size, mask.shape))
        height, width = (max(1, round(factor * length)) for length in mask.shape)
        image, mask = resized(np.ascontiguousarray(image), np.ascontiguousarray(mask), (height, width))
        # A window of the crop's size over image and margin, at a random place where there is room on either side.
        first = [
            int(number * (abs(length - crop) + 1))
            for number, length, crop in zip((top, left), (height, width), self.size)
        ]
        cropped = np.zeros((*self.size, 3), np.uint8)
        labels = np.full(self.size, IGNORED, np.int32)
        inner, outer = [], []
        for start, length, crop in zip(first, (height, width), self.size):
            kept = min(length, crop)
            inner.append(slice(start, start + kept) if length > crop else slice(0, kept))
            outer.append(slice(start, start + kept) if length < crop else slice(0, kept))
        cropped[tuple(outer)], labels[tuple(outer)] = image[tuple(inner)], mask[tuple(inner)]
        if blur < self.blur_probability:
            cropped = _blurred(cropped, float(radius))
        return cropped, labels


def _blurred(image: np.ndarray, radius: float) -> np.ndarray:
    images, _ = pillow()
    from PIL import ImageFilter

    return np.asarray(images.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))
