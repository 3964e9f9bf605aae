"""Base of all sources of labelled images."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from keras_robust.data.preprocessing import decode, resize_and_crop
from keras_robust.machine import available_cores


class Source:
    """Labelled images as they are: uint8, RGB, of any size.

    A source gives one image at a time, so that a large one need not fit into memory, and the same image at every
    resolution that it is asked for. A subclass sets the two attributes and writes `image`.

    Attributes:
        class_names: names of the classes, in the order of their labels.
        labels: int64 array of shape (len(source),), values in [0, len(class_names)).
        note: how the split came about, where a user should know; "" if there is nothing to say.
    """

    class_names: tuple[str, ...]
    labels: np.ndarray
    note: str = ""

    def image(self, index: int) -> np.ndarray:
        """The image at `index`, uint8 of shape (height, width, 3)."""
        raise NotImplementedError(f"{type(self).__name__} has no image()")

    def name(self, index: int) -> str:
        """What to call the image at `index` in a message: its file, where it has one."""
        return f"image {index}"

    def identifier(self, index: int) -> str:
        """The image at `index`, wherever the dataset lies: `<class>/<file>`, or its place."""
        return f"image {index}"

    def label(self, index: int) -> int:
        """The label of the image at `index`, for sources that would have to read everything to know `labels`."""
        return int(self.labels[index])

    def __len__(self) -> int:
        return len(self.labels)

    def summary(self) -> str:
        """One line: how many images and classes, and how evenly they are spread. Nothing is ever resampled."""
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        least, most = int(counts.argmin()), int(counts.argmax())
        if counts[least] == counts[most]:
            spread = f"{counts[most]:,} each"
        else:
            spread = (
                f"from {counts[least]:,} ({self.class_names[least]}) to {counts[most]:,} ({self.class_names[most]})"
            )
        line = f"{len(self):,} images of {len(counts)} classes, {spread}"
        return f"{line}; {self.note}" if self.note else line

    def arrays(
        self, resolution: int, crop_pct: float = 0.875, interpolation: str = "bicubic", seed: int | None = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """All images at one resolution, with their labels, shuffled: Keras' `validation_split` takes the last ones.

        Args:
            resolution, crop_pct, interpolation: see `resize_and_crop`.
            seed: of their order; None leaves them in that of the source, which is often sorted by class.

        Returns:
            Images, uint8 of shape (n, resolution, resolution, 3), and labels, int64 of shape (n,).
        """
        images = np.empty((len(self), resolution, resolution, 3), np.uint8)
        order = list(range(len(self)))
        if seed is not None:
            random.Random(seed).shuffle(order)

        def fill(place: int) -> None:
            images[place] = resize_and_crop(self.image(order[place]), resolution, crop_pct, interpolation)

        # Threads: Pillow works without Python's lock, and no pixels have to travel.
        with ThreadPoolExecutor(available_cores()) as pool:
            for _ in pool.map(fill, range(len(order))):
                pass
        return images, self.labels[order]

    def sample(self, n: int, seed: int = 0) -> "Source":
        """`n` of the images, drawn without replacement; the same ones for the same seed, all of them if n >= len."""
        order = list(range(len(self)))
        random.Random(seed).shuffle(order)
        return (_EncodedSubset if isinstance(self, EncodedSource) else _Subset)(self, order[:n])


class EncodedSource(Source):
    """A source of image files, as files or inside of something else: a subclass writes `encoded` and `name`."""

    def encoded(self, index: int) -> bytes:
        """The content of the image's file."""
        raise NotImplementedError(f"{type(self).__name__} has no encoded()")

    def file_size(self, index: int) -> int | None:
        """Bytes of the image's file, where they are known without reading it."""
        return None

    def image(self, index: int) -> np.ndarray:
        return decode(self.encoded(index), self.name(index))

    def encoded_with_label(self, index: int) -> tuple[bytes, int]:
        """Content and label, read once where they lie together."""
        return self.encoded(index), self.label(index)


class _Subset(Source):
    def __init__(self, source: "Source", indices: list[int]) -> None:
        self._source = source
        self._indices = np.asarray(indices)
        self.class_names, self.note = source.class_names, source.note
        self.labels = source.labels[self._indices]

    def image(self, index: int) -> np.ndarray:
        return self._source.image(self._indices[index])

    def name(self, index: int) -> str:
        return self._source.name(self._indices[index])

    def identifier(self, index: int) -> str:
        return self._source.identifier(self._indices[index])


class _EncodedSubset(_Subset, EncodedSource):
    def encoded(self, index: Any) -> Any:
        return self._source.encoded(self._indices[index])  # type: ignore[attr-defined]

    def file_size(self, index: int) -> int | None:
        return self._source.file_size(self._indices[index])  # type: ignore[attr-defined]
