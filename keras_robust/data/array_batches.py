"""Batches for `fit` from arrays, the same on every backend."""

import keras
import numpy as np

from keras_robust.checks import check_count


class OrientedBatches(keras.utils.PyDataset):
    """Shuffled batches in which each image is mirrored and turned at random, into one of its eight orientations.

    An augmentation that costs next to nothing, for images without an upright: textures, crops, views from above. A
    last batch that would be smaller is left out, so that training compiles once.

    Args:
        images: uint8 array of shape (n, resolution, resolution, channels); it stays in 8 bits until a batch is wanted.
        labels: array of shape (n,) or (n, classes).
        batch_size: images in a batch, at most n.
        seed: of order and orientations, which change with every epoch.

    Its items are float32 images in [0, 1] of shape (batch_size, resolution, resolution, channels), and their labels.

    Raises:
        ValueError: images that are no square uint8 images, another number of labels, or too few for one batch.

    Example:
        >>> images = (255 * x).astype("uint8")
        >>> history = trainer.fit(kr.data.OrientedBatches(images, y, batch_size=4), epochs=2, verbose=0)
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, batch_size: int, seed: int = 0) -> None:
        super().__init__()
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != images.shape[2]:
            raise ValueError(
                f"images must be uint8 of shape (n, resolution, resolution, channels);"
                f" received {images.dtype} of {images.shape}."
            )
        if len(labels) != len(images):
            raise ValueError(f"labels must be one per image; received {len(labels)} for {len(images)} images.")
        self.batch_size = check_count("batch_size", batch_size)
        if batch_size > len(images):
            raise ValueError(f"batch_size must be at most the number of images, {len(images)}; received {batch_size}.")
        self.images = images
        self.labels = labels
        self.seed = seed
        self.epoch = -1
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self._order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.images))

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        mirror, flip, transpose = np.random.default_rng((self.seed, self.epoch, index)).random((3, len(chosen))) < 0.5
        x = self.images[chosen]
        x[mirror] = x[mirror, :, ::-1]
        x[flip] = x[flip, ::-1]
        x[transpose] = x[transpose].transpose(0, 2, 1, 3)
        return x.astype(np.float32) / 255, self.labels[chosen]
