"""Image selection: which images an evaluation uses, in which order, every one of them read before any is attacked."""

import hashlib
import random
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from keras_robust.checks import check_count
from keras_robust.data import Source, source
from keras_robust.data.class_names import match_classes, read_class_names
from keras_robust.data.sources.splits import HELD_OUT
from keras_robust.files import read_text
from keras_robust.progress import ProgressLine

LISTED = 10  # names in a message
DECODERS = 4  # threads: reading an image is mostly waiting for the disk and for libraries outside of Python


def open_dataset(
    dataset: Source | str | PathLike | Sequence[str | PathLike],
    split: str | None = None,
    data_dir: str | PathLike | None = None,
) -> Source:
    """A source of images from what a user may name.

    Args:
        dataset: a `Source`, which is returned, or what `keras_robust.data.source` takes: "photo_crops", a folder or
            archive of class folders, shards, an `.npz` or `.parquet` file, "tfds:NAME".
        split: "train", "val" or "test". If not given, the images held out ("val", or else "test") where the dataset
            has splits, and all images where it has none.
        data_dir: of "tfds:" data sets.

    Raises:
        ValueError: there is no such dataset, or it is not as described.
    """
    if isinstance(dataset, Source):
        return dataset
    if not isinstance(dataset, (str, PathLike, list, tuple)):
        raise ValueError(f"dataset must be a Source, a path or a name; received {dataset!r:.200}.")
    try:
        return source(dataset, split or HELD_OUT, data_dir=data_dir)
    except ValueError as error:  # in the words of this function's caller
        raise ValueError(re.sub("^path_or_name ", "dataset ", str(error))) from error


@dataclass(frozen=True)
class Selection:
    """The images of an evaluation, in the order attacked.

    Attributes:
        index: their places in the dataset, int64 (n,).
        labels: the model's output that is right for each, int64 (n,).
        names: file names or, where the dataset has none, places.
        digests: hash of each image's raw pixels, uint64 (n,): two reports with the same ones saw the same images.
        skipped: why an image was left out, a sentence for each.
        outputs: name of each of the model's outputs.
        matched_by: how classes were matched to outputs, by "name", "order" or "number".
    """

    index: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    digests: np.ndarray
    skipped: tuple[str, ...]
    outputs: tuple[str, ...]
    matched_by: str

    def __len__(self) -> int:
        return len(self.index)

    @property
    def sha256(self) -> str:
        """One hash of all images, their order and their labels."""
        return hashlib.sha256(self.digests.tobytes() + self.labels.astype("<i8").tobytes()).hexdigest()


def select(
    dataset: Source,
    num_classes: int,
    n_examples: int | None = None,
    seed: int = 0,
    class_names: Sequence[str] | str | PathLike | None = None,
    image_list: str | PathLike | None = None,
    skip_corrupt: bool = False,
    verbose: bool = False,
) -> Selection:
    """Choose the images and decode each of them once.

    Args:
        dataset: the images.
        num_classes: number of the model's outputs.
        n_examples: how many; all of them if not given.
        seed: of their order; not used with `image_list`, whose first images are taken in its order.
        class_names: names of the model's outputs; see `read_class_names`. Needed where the dataset's classes are
            others than the model's, a subset for example.
        image_list: path of a text file with one image per line, as `<class>/<file>`, for instance RobustBench's list
            of 5,000 images of ImageNet.
        skip_corrupt: leave out images that cannot be read, taking the next ones instead.

    Raises:
        ValueError: the dataset is empty, its classes do not match the model's, it has fewer images than asked for,
            the list names images that it does not have, or (without `skip_corrupt`) an image cannot be read.
    """
    if not len(dataset):
        raise ValueError("dataset must hold images; it is empty.")
    aliases = None if class_names is None else read_class_names(class_names)
    matching = match_classes(dataset.class_names, num_classes, aliases)
    if image_list is None:
        order = list(range(len(dataset)))
        random.Random(seed).shuffle(order)
    else:
        order = _listed(dataset, Path(image_list))
    wanted = len(order) if n_examples is None else check_count("n_examples", n_examples)
    if wanted > len(order):
        raise ValueError(f"n_examples must be at most the {len(order)} images there are; received {n_examples}.")
    good, digests, skipped = _readable(dataset, order, wanted, skip_corrupt, verbose)
    if (n_examples is not None and len(good) < n_examples) or not good:
        raise ValueError(f"dataset has {len(good)} readable images, fewer than the {wanted} asked for: {skipped[0]}")
    if aliases is not None:
        outputs = [names[-1] for names in aliases]
    elif len(dataset.class_names) == num_classes:
        outputs = list(dataset.class_names)
    else:
        outputs = [str(output) for output in range(num_classes)]
    names = tuple(dataset.identifier(index) for index in good)
    index, labels = np.asarray(good, np.int64), matching.outputs[[dataset.label(place) for place in good]]
    digest = np.asarray(digests, np.uint64)
    return Selection(index, labels, names, digest, tuple(skipped), tuple(outputs), matching.by)


def is_imagenet(dataset: Source) -> bool:
    """Whether the dataset looks like ImageNet-1k: a thousand classes with names like n01440764."""
    names = dataset.class_names
    return len(names) == 1000 and all(name[0] == "n" and name[1:].isdigit() and len(name) == 9 for name in names)


def _listed(dataset: Source, path: Path) -> list[int]:
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"image_list must name images; {path} is empty.")
    places = {dataset.identifier(index): index for index in range(len(dataset))}
    if len(places) < len(dataset):
        twice = len(dataset) - len(places)
        raise ValueError(f"image_list needs images with different names; of {len(dataset)}, {twice} have another's.")
    missing = [line for line in lines if line not in places]
    if missing:
        raise ValueError(
            f"image_list must name images of the dataset; of {len(lines)} in {path.name}, {len(missing)} are not there:"
            f" {', '.join(missing[:3])} ..."
        )
    return [places[line] for line in lines]


def _readable(
    dataset: Source, order: list[int], wanted: int, skip_corrupt: bool, verbose: bool
) -> tuple[list[int], list[int], list[str]]:
    """The first `wanted` images of `order` that can be read, their digests, and what is wrong with the others."""
    good: list[int] = []
    digests: list[int] = []
    wrong: list[str] = []
    line = ProgressLine(sys.stderr if verbose else None)
    line.show(f"reading {wanted} images")

    def look(index: int) -> tuple[int, int, str | None]:
        try:
            image = np.ascontiguousarray(dataset.image(index))
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
                raise ValueError(
                    f"{dataset.name(index)} must be uint8 of shape (height, width, 3); received {image.dtype} of "
                    f"shape {image.shape}."
                )
        except (ValueError, OSError) as error:
            return index, 0, " ".join(str(error).split())
        digest = hashlib.blake2b(image.tobytes(), digest_size=8, key=repr(image.shape).encode()).digest()
        return index, int.from_bytes(digest, "little"), None

    with ThreadPoolExecutor(DECODERS) as pool:
        position = 0
        while position < len(order) and len(good) < wanted:
            part = order[position : position + wanted - len(good)]
            position += len(part)
            for index, digest, error in pool.map(look, part):
                if error is None:
                    good.append(index)
                    digests.append(digest)
                else:
                    wrong.append(error)
                if line.due():
                    line.show(f"reading images: {len(good)} of {wanted}")
    line.close()
    if wrong and not skip_corrupt:
        more = f" (and {len(wrong) - LISTED} more)" if len(wrong) > LISTED else ""
        raise ValueError(
            f"{len(wrong)} of {len(good) + len(wrong)} images are corrupt: {'; '.join(wrong[:LISTED])}{more}"
        )
    return good, digests, wrong
