"""Crops of photographs that are installed with scikit-image: real data that needs no download."""

import importlib.util
import random
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from keras_robust.checks import check_choice, check_count
from keras_robust.data.preprocessing import decode
from keras_robust.data.sources.base import Source
from keras_robust.data.sources.splits import HELD_OUT, WHOLE_TRAIN

SPLITS = ("train", "val")

# Files inside the wheel of scikit-image, so that nothing is downloaded, with their (width, height). Origin and terms of
# each (most are CC0 or public domain) stand in the documentation of skimage.data.
PHOTOS = {
    "brick": ("brick.png", (512, 512)),
    "grass": ("grass.png", (512, 512)),
    "gravel": ("gravel.png", (512, 512)),
    "chelsea": ("chelsea.png", (451, 300)),
    "coffee": ("coffee.png", (600, 400)),
    "astronaut": ("astronaut.png", (512, 512)),
    "hubble_deep_field": ("hubble_deep_field.jpg", (1000, 872)),
    "ihc": ("ihc.png", (512, 512)),
    "motorcycle_left": ("motorcycle_left.png", (741, 500)),
    "retina": ("retina.jpg", (1411, 1411)),
}


class PhotoCrops(Source):
    """Square crops of ten photographs; the class of a crop is the photograph that it was cut from.

    Real photographs that need no download: the ten lie in the wheel of scikit-image. Crops for training come from the
    left 60 % of each photograph, crops for validation from the rest, so the two share no pixel. Every class has the
    same number of crops.

    Args:
        split: "train" or "val".
        per_class: number of crops from each photograph; 400 for training and 100 for validation if not given.
        seed: of the positions. Crops depend on (split, seed) and the sizes in `PHOTOS` alone, and the first crops are
            the same whatever `per_class` is.

    Attributes:
        boxes: int64 array of shape (len(source), 4): left, top, right and bottom of each crop in its photograph, the
            latter two exclusive. Sides are uniform in 48..96 px, positions uniform in the split's part.

    Raises:
        ImportError: scikit-image is not installed.
    """

    PER_CLASS = {"train": 400, "val": 100}
    SIDES = (48, 96)
    TRAIN_SHARE = 0.6

    def __init__(self, split: str, per_class: int | None = None, seed: int = 0) -> None:
        split = {HELD_OUT: "val", WHOLE_TRAIN: "train"}.get(split) or check_choice("split", split, SPLITS)
        per_class = self.PER_CLASS[split] if per_class is None else check_count("per_class", per_class)
        self.class_names = tuple(PHOTOS)
        self.labels = np.repeat(np.arange(len(PHOTOS)), per_class)
        self.boxes = np.array([box for name in PHOTOS for box in self._boxes(name, split, per_class, seed)])
        self._folder = _scikit_image_folder()

    def image(self, index: int) -> np.ndarray:
        left, top, right, bottom = self.boxes[index]
        return self._photos[self.labels[index]][top:bottom, left:right]

    def photo(self, label: int) -> np.ndarray:
        """The whole photograph of a class, uint8 of shape (height, width, 3)."""
        return self._photos[label]

    @cached_property
    def _photos(self) -> list[np.ndarray]:
        return [self._read(*photo) for photo in PHOTOS.values()]

    def _read(self, name: str, size: tuple[int, int]) -> np.ndarray:
        path = self._folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{path}: this release of scikit-image does not bundle the photograph; 0.26 does")
        photo = decode(path)
        if photo.shape[1::-1] != size:
            raise ValueError(f"{path} must be of (width, height) {size}; received {photo.shape[1::-1]}.")
        return photo

    def _boxes(self, name: str, split: str, n: int, seed: int) -> Iterator[Any]:
        width, height = PHOTOS[name][1]
        border = int(width * self.TRAIN_SHARE)
        start, stop = (0, border) if split == "train" else (border, width)
        # Python promises that random() keeps its sequence across releases; numpy's Generator does not.
        uniform = random.Random(f"photo_crops/{seed}/{split}/{name}").random
        shortest, longest = self.SIDES
        for _ in range(n):
            side = shortest + int(uniform() * (longest - shortest + 1))
            left = start + int(uniform() * (stop - start - side + 1))
            top = int(uniform() * (height - side + 1))
            yield left, top, left + side, top + side


def photo_crops(split: str, per_class: int | None = None, seed: int = 0) -> PhotoCrops:
    """Crops of ten bundled photographs, a 10-class problem that needs no download: see `PhotoCrops`.

    Example:
        >>> train = kr.data.photo_crops("train")
        >>> images, labels = train.arrays(32, crop_pct=1.0)   # uint8 (4000, 32, 32, 3), int64 (4000,), shuffled
        >>> train.class_names[0]
        'brick'
    """
    return PhotoCrops(split, per_class, seed)


def _scikit_image_folder() -> Path:
    # Found without importing it: scikit-image loads slowly, and its own readers may want to download.
    spec = importlib.util.find_spec("skimage")
    if spec is None:
        raise ImportError("The photographs come with scikit-image: pip install 'keras-robust[images]'")
    return Path(spec.submodule_search_locations[0]) / "data"  # type: ignore[index]
