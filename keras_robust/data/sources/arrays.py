"""Images in an .npz file of numpy arrays."""

import zipfile
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np

from keras_robust.data.sources.base import Source
from keras_robust.data.sources.splits import HELD_OUT, NOTHING_HELD_OUT, SPLITS, WHOLE_TRAIN, drawn_places
from keras_robust.files import DAMAGE, check_unpacked_sizes
from keras_robust.npz import read_array


class ArrayFile(Source):
    """Images in an `.npz` file: `x` or `images`, `y` or `labels`, and `class_names` where there are any.

    Images are uint8 of shape (n, height, width), (n, height, width, 1) or (n, height, width, 3); labels are integers of
    shape (n,) or (n, 1). A file of several splits names its arrays `x_train`, `y_train`, `x_test` and so on; of one
    that has none, a fifth of each class becomes the validation split.

    Args:
        path: of the file.
        split: "train", "val" or "test"; None takes all images of a file that has no splits.
        seed: of the split of a file that has none of its own.

    Raises:
        ValueError: the file is no .npz, needs unpickling, unpacks to more than 32 GiB, lacks an array, or an array is
            not as above.
    """

    def __init__(self, path: str | PathLike, split: str | None, seed: int = 0) -> None:
        self.path = path
        images, labels, names, taken, drawn = _read(path, split)
        if (
            images.dtype != np.uint8
            or images.ndim not in (3, 4)
            or (images.ndim == 4 and images.shape[3] not in (1, 3))
        ):
            raise ValueError(
                f"{path} must hold images in uint8 of shape (n, height, width), (n, height, width, 1) or "
                f"(n, height, width, 3); received {images.dtype} of shape {images.shape}."
            )
        if not np.issubdtype(labels.dtype, np.integer) or labels.size != len(images) or labels.shape[0] != len(images):
            raise ValueError(
                f"{path} must hold one integer label per image, shape ({len(images)},); "
                f"received {labels.dtype} of shape {labels.shape}."
            )
        if len(images) == 0:
            raise ValueError(f"{path} must hold images; it holds none.")
        labels = labels.reshape(-1).astype(np.int64)
        count = len(names) if names is not None else int(labels.max()) + 1
        if labels.min() < 0 or labels.max() >= count:
            raise ValueError(
                f"{path} must hold labels in [0, {count - 1}]; received values in [{labels.min()}, {labels.max()}]."
            )
        self.class_names = tuple(names) if names is not None else tuple(map(str, range(count)))
        if drawn:
            chosen = drawn_places(str(path), labels, self.class_names, str(split), seed)
            images, labels = images[chosen], labels[chosen]
            self.note = f"no validation part: a fifth of each class is held out as one (seed {seed})"
        elif split == HELD_OUT and taken in (None, "train"):
            self.note = NOTHING_HELD_OUT
        self._images = images if images.ndim == 4 else images[..., None]
        self.labels = labels

    def name(self, index: Any) -> Any:
        return f"{self.path}: image {index}"

    def identifier(self, index: int) -> str:
        return f"image {index}"

    def image(self, index: int) -> np.ndarray:
        image = self._images[index]
        return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def _read(path: str | PathLike, split: str | None) -> tuple[Any, ...]:
    """Images, labels, class names or None, the split taken, and whether it is still to be drawn."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_unpacked_sizes(archive)
            arrays = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            suffixed = [part for part in SPLITS if f"x_{part}" in arrays]
            if split == HELD_OUT:
                split = next((part for part in ("val", "test", "train") if part in suffixed), None)
            whole = split == WHOLE_TRAIN
            if whole:
                split = "train" if suffixed else None
            if suffixed:
                drawn = set(suffixed) == {"train", "test"} and split in ("train", "val") and not whole
                if split not in suffixed and not drawn:
                    accepted = ", ".join(map(repr, suffixed))
                    raise ValueError(f"split must be one of {accepted}, which it holds; received {split!r}")
                part = split if split in suffixed else "train"
                wanted: tuple[tuple[str, ...], ...] = ((f"x_{part}",), (f"y_{part}",))
            else:
                drawn = split is not None
                if split == "test":
                    raise ValueError("split must be 'train' or 'val', as it has no x_test; received 'test'")
                wanted = (("x", "images"), ("y", "labels"))
            images, labels = (read_array(archive, _first(arrays, names)) for names in wanted)
            names = None
            if "class_names" in arrays:
                names = [str(name) for name in read_array(archive, arrays["class_names"]).reshape(-1)]
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} cannot be read as an .npz of images and labels: {reason}") from error
    return images, labels, names, split, drawn


def _first(arrays: dict[str, zipfile.ZipInfo], names: Sequence[str]) -> zipfile.ZipInfo:
    for name in names:
        if name in arrays:
            return arrays[name]
    raise ValueError(f"it must hold {' or '.join(map(repr, names))}; it holds {sorted(arrays)}")
