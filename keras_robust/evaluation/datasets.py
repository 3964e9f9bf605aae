"""Datasets by name or path."""

from os import PathLike
from pathlib import Path

import numpy as np

from keras_robust.checks import check_choice
from keras_robust.data import Source, image_folder, photo_crops


class Arrays(Source):
    """Images of a `.npz` file: "x" uint8 (n, height, width, 3) and "y" integers (n,), or other names for them."""

    NAMES = (("x", "y"), ("images", "labels"), ("x_test", "y_test"))

    def __init__(self, path):
        try:
            with np.load(path, allow_pickle=False) as file:
                names = next((pair for pair in self.NAMES if set(pair) <= set(file.files)), None)
                if names is None:
                    raise ValueError(f"it holds {sorted(file.files)}, accepted are {self.NAMES}")
                self._images, labels = (file[name] for name in names)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as a dataset: {error}") from error
        if self._images.dtype != np.uint8 or self._images.ndim != 4 or self._images.shape[-1] != 3:
            found = f"{self._images.dtype} of shape {self._images.shape}"
            raise ValueError(f"{path} must hold images uint8 (n, height, width, 3); it holds {found}.")
        labels = np.squeeze(labels)
        if labels.shape != self._images.shape[:1] or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
            raise ValueError(f"{path} must hold one label >= 0 per image; it holds {labels.dtype} of {labels.shape}.")
        self.labels = labels.astype(np.int64)
        self.class_names = tuple(str(label) for label in range(int(labels.max()) + 1))

    def image(self, index):
        return self._images[index]


def open_dataset(dataset: Source | str | PathLike, split: str | None = None) -> Source:
    """A source of images from what a user may name.

    Args:
        dataset: a `Source`, which is returned; "photo_crops"; the path of a folder with one folder of images per class
            (or of one with such folders in `train/` and `val/`), or of a `.npz` file with "x" and "y".
        split: "train" or "val", where the dataset has splits; "val" if not given.

    Raises:
        ValueError: there is no such dataset, or it is not as described.
    """
    if isinstance(dataset, Source):
        return dataset
    check_choice("split", split, ("train", "val", None))
    path = Path(dataset)
    if str(dataset) == "photo_crops":
        return photo_crops(split or "val")
    if path.is_dir():
        has_splits = (path / "train").is_dir() and (path / "val").is_dir()
        return image_folder(path, split or "val") if has_splits else image_folder(path, None)
    if path.suffix == ".npz" and path.is_file():
        return Arrays(path)
    raise ValueError(f"dataset must be 'photo_crops', a folder or a .npz file; received {str(dataset)!r}.")
