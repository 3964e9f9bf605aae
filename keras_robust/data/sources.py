"""Where labelled images come from: photographs that are installed with scikit-image, and folders of image files."""

import importlib.util
import random
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np

from keras_robust.checks import check_choice, check_count
from keras_robust.data.preprocessing import decode, resize_and_crop

SPLITS = ("train", "val")


class Source:
    """Labelled images as they are: uint8, RGB, of any size.

    A source gives one image at a time, so that a large one need not fit into memory, and the same image at every
    resolution that it is asked for. A subclass sets the two attributes and writes `image`.

    Attributes:
        class_names: names of the classes, in the order of their labels.
        labels: int64 array of shape (len(source),), values in [0, len(class_names)).
    """

    class_names: tuple[str, ...]
    labels: np.ndarray

    def image(self, index: int) -> np.ndarray:
        """The image at `index`, uint8 of shape (height, width, 3)."""
        raise NotImplementedError(f"{type(self).__name__} has no image()")

    def __len__(self):
        return len(self.labels)

    def arrays(
        self, resolution: int, crop_ratio: float = 0.875, interpolation: str = "bicubic"
    ) -> tuple[np.ndarray, np.ndarray]:
        """All images at one resolution, with their labels.

        Args:
            resolution, crop_ratio, interpolation: see `resize_and_crop`.

        Returns:
            Images, uint8 of shape (n, resolution, resolution, 3), and labels, int64 of shape (n,).
        """
        images = np.empty((len(self), resolution, resolution, 3), np.uint8)
        for index in range(len(self)):
            images[index] = resize_and_crop(self.image(index), resolution, crop_ratio, interpolation)
        return images, self.labels.copy()

    def sample(self, n: int, seed: int = 0) -> "Source":
        """`n` of the images, drawn without replacement; the same ones for the same seed, all of them if n >= len."""
        order = list(range(len(self)))
        random.Random(seed).shuffle(order)
        return _Subset(self, order[:n])


class _Subset(Source):
    def __init__(self, source, indices):
        self._source = source
        self._indices = np.asarray(indices)
        self.class_names = source.class_names
        self.labels = source.labels[self._indices]

    def image(self, index):
        return self._source.image(self._indices[index])


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

    def __init__(self, split: str, per_class: int | None = None, seed: int = 0):
        check_choice("split", split, SPLITS)
        per_class = self.PER_CLASS[split] if per_class is None else check_count("per_class", per_class)
        self.class_names = tuple(PHOTOS)
        self.labels = np.repeat(np.arange(len(PHOTOS)), per_class)
        self.boxes = np.array([box for name in PHOTOS for box in self._boxes(name, split, per_class, seed)])
        self._folder = _scikit_image_folder()

    def image(self, index):
        left, top, right, bottom = self.boxes[index]
        return self._photos[self.labels[index]][top:bottom, left:right]

    @cached_property
    def _photos(self):
        return [self._read(*photo) for photo in PHOTOS.values()]

    def _read(self, name, size):
        path = self._folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{path}: this release of scikit-image does not bundle the photograph; 0.26 does")
        photo = decode(path)
        if photo.shape[1::-1] != size:
            raise ValueError(f"{path} must be of (width, height) {size}; received {photo.shape[1::-1]}.")
        return photo

    def _boxes(self, name, split, n, seed):
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
        >>> images, labels = train.arrays(32, crop_ratio=1.0)   # uint8 (4000, 32, 32, 3), int64 (4000,)
        >>> train.class_names[labels[0]]
        'brick'
    """
    return PhotoCrops(split, per_class, seed)


class ImageFolder(Source):
    """Images in one folder per class.

    Either `root/train/<class>/*` and `root/val/<class>/*`, or `root/<class>/*` alone, of which a fifth of each class
    (at least one image) becomes the validation split: the same files on every machine, because names alone decide.
    Files may lie in folders below their class's; names that begin with a dot are passed over.

    Args:
        root: the folder.
        split: "train" or "val"; None takes all images of `root/<class>/*`.
        seed: of the split of a folder that has no train and val of its own.

    Attributes:
        paths: the file of each image, sorted by class and name.

    Raises:
        ValueError: `root` is no folder or holds no classes, a class has no files (or only one, where a split is to be
            drawn), or the classes of train and val differ. `image` raises it, with the file's name, for a file that
            is no readable image.
    """

    VAL_SHARE = 0.2

    def __init__(self, root: str | PathLike, split: str | None, seed: int = 0):
        check_choice("split", split, (*SPLITS, None))
        root = Path(root)
        if not root.is_dir():
            raise ValueError(f"root must be a folder; received {str(root)!r}.")
        if split is None:
            files = _files_by_class(root)
        elif all((root / part).is_dir() for part in SPLITS):
            train, val = (_files_by_class(root / part) for part in SPLITS)
            if train.keys() != val.keys():
                raise ValueError(
                    f"train and val must hold the same classes; only one has {sorted(train.keys() ^ val.keys())}."
                )
            files = train if split == "train" else val
        else:
            files = {
                name: self._split(root / name, paths, split, seed) for name, paths in _files_by_class(root).items()
            }
        self.class_names = tuple(files)
        self.paths = [path for paths in files.values() for path in paths]
        self.labels = np.repeat(np.arange(len(files)), [len(paths) for paths in files.values()])

    def image(self, index):
        return decode(self.paths[index])

    def _split(self, folder, paths, split, seed):
        if len(paths) < 2:
            raise ValueError(f"{folder} must hold at least 2 images, to draw a validation split; it holds one.")
        order = list(range(len(paths)))
        random.Random(f"image_folder/{seed}/{folder.name}").shuffle(order)
        n_val = max(1, round(self.VAL_SHARE * len(paths)))
        chosen = order[:n_val] if split == "val" else order[n_val:]
        return [paths[i] for i in sorted(chosen)]


def image_folder(root: str | PathLike, split: str | None, seed: int = 0) -> ImageFolder:
    """Images in one folder per class: see `ImageFolder`.

    Example:
        >>> val = kr.data.image_folder("flowers", "val")   # flowers/val/rose/1.jpg or flowers/rose/1.jpg
        >>> images, labels = val.arrays(224)
    """
    return ImageFolder(root, split, seed)


def _files_by_class(root):
    classes = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise ValueError(f"{root} must hold one folder of images per class; it holds no folders.")
    files = {}
    for folder in classes:
        names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        visible = (name for name in names if not any(part.startswith(".") for part in name.parts))
        files[folder.name] = [folder / name for name in sorted(visible, key=Path.as_posix)]
        if not files[folder.name]:
            raise ValueError(f"{folder} must hold images; it holds none.")
    return files


def _scikit_image_folder():
    # Found without importing it: scikit-image loads slowly, and its own readers may want to download.
    spec = importlib.util.find_spec("skimage")
    if spec is None:
        raise ImportError("The photographs come with scikit-image: pip install 'keras-robust[quickstart]'")
    return Path(spec.submodule_search_locations[0]) / "data"
