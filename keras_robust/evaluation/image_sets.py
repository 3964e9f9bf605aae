"""Images that a model classifies without an attack: corrupted versions of those attacked, and other data sets."""

import hashlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from keras_robust.attacks.suite import predictions
from keras_robust.data import Source, resize_and_crop
from keras_robust.data.class_names import is_number, match_classes, read_class_names
from keras_robust.data.preprocessing import decode
from keras_robust.evaluation.corruptions import ALEXNET, ON_THE_FLY, SEVERITIES, SMALLEST, VERSIONS, corrupt, seed_of
from keras_robust.evaluation.image_selection import DECODERS, Selection, open_dataset, select
from keras_robust.evaluation.results import CORRUPTIONS
from keras_robust.evaluation.settings import ImageSetSettings
from keras_robust.versions import installed_versions, version

LIBRARY = "imagecorruptions-imaug"
MAKERS = ("numba", "opencv-python", "opencv-python-headless", "scikit-image", "scipy")  # what it calculates with
HASHED = 16  # files of each version of corrupted images whose content is hashed
AS_THEY_ARE = ""  # the version of images that are not varied
NAME = r"\w[\w.-]*"


@dataclass(frozen=True)
class ImageSet:
    """Images with labels, in one or more versions of each.

    Attributes:
        name: of the set.
        versions: such as "fog/3".
        labels: the model's output that is right for each image, int64 (n,).
        digests: hash of each image, uint64 (n,): two reports with the same ones saw the same images.
        outputs: the model's outputs that may be the answer, int64, where the classes are a part of the model's.
        read: an image by place, version and resolution, uint8 (resolution, resolution, 3).
        note: what a reader must know of the images.
        matched_by, skipped, files_sha256: see `ImageSetSettings`.
    """

    name: str
    versions: tuple[str, ...]
    labels: np.ndarray
    digests: np.ndarray
    outputs: np.ndarray | None
    read: Callable[[int, str, int], np.ndarray]
    note: str = ""
    matched_by: str = "name"
    skipped: int = 0
    files_sha256: str | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def settings(self) -> ImageSetSettings:
        digest = hashlib.sha256(self.digests.tobytes() + self.labels.astype("<i8").tobytes()).hexdigest()
        outputs = self.outputs
        return ImageSetSettings(
            self.name,
            self.versions,
            len(self),
            digest,
            None if outputs is None else len(outputs),
            self.note,
            None if outputs is None else hashlib.sha256(outputs.astype("<i8").tobytes()).hexdigest(),
            self.matched_by,
            self.skipped,
            self.files_sha256,
        )

    def at(self, version: str, resolution: int, rows: slice) -> np.ndarray:
        """One version of some of the images, float32 (n, resolution, resolution, 3) in [0, 1]."""
        places = range(*rows.indices(len(self)))
        with ThreadPoolExecutor(DECODERS) as pool:
            images = np.stack(list(pool.map(lambda place: self.read(place, version, resolution), places)))
        return images.astype(np.float32) / 255

    def answers(self, logits: np.ndarray) -> np.ndarray:
        """The model's answers, from its logits (n, classes): int32 (n,), the largest of the outputs that may be."""
        if self.outputs is None:
            return predictions(logits)
        answers = predictions(logits[:, self.outputs])
        return np.where(answers < 0, answers, self.outputs[answers]).astype(np.int32)

    def arrays(self) -> dict[str, np.ndarray]:
        """What is kept of the images themselves."""
        return {"label": self.labels, "digest": self.digests}


def corrupted(
    corruptions: str | PathLike | None,
    dataset: Source,
    selection: Selection,
    resolutions: Sequence[int],
    crop_pct: float,
    interpolation: str,
    seed: int,
) -> ImageSet:
    """The images of an evaluation under common corruptions.

    Args:
        corruptions: a folder in the layout of ImageNet-C, or None to make them on the fly.
        dataset, selection: the images of the evaluation.
        resolutions, crop_pct, interpolation: of it.
        seed: of what is drawn.

    Raises:
        ImportError: they are to be made, and imagecorruptions is not installed.
        ValueError: they are too small for that, or the folder lacks some.
    """
    if corruptions is None:
        if min(resolutions) < SMALLEST:
            raise ValueError(f"resolutions must be at least {SMALLEST} for corruptions; received {min(resolutions)}.")
        corrupt(np.zeros((SMALLEST, SMALLEST, 3), np.uint8), "contrast", 1, 0)  # before hours are spent

        def made(place: int, kind: str, resolution: int) -> np.ndarray:
            raw = dataset.image(int(selection.index[place]))
            image = resize_and_crop(raw, resolution, crop_pct, interpolation)
            name, _, severity = kind.partition("/")
            return corrupt(image, name, int(severity), seed_of(seed, place, kind))

        versions, read, files = VERSIONS, made, None
        packages = ", ".join(f"{name} {each}" for name, each in installed_versions(MAKERS).items())
        note = ON_THE_FLY.format(version=version(LIBRARY), packages=packages, seed=seed)
    else:
        folder = Path(corruptions)
        versions, note = _versions_in(folder), "read from files, as they were made once for all"
        missing = [
            f"{each}/{name}" for each in versions for name in selection.names if not (folder / each / name).is_file()
        ]
        if missing:
            raise ValueError(
                f"corruptions must hold the images of the evaluation, as <corruption>/<severity>/<class>/<file>; "
                f"{len(missing)} are not in {str(corruptions)!r}: {', '.join(missing[:3])}"
            )

        def stored(place: int, kind: str, resolution: int) -> np.ndarray:
            # They are cropped already: at their own resolution nothing is left to do.
            return resize_and_crop(decode(folder / kind / selection.names[place]), resolution, 1.0, interpolation)

        read, files = stored, _files_sha256(folder, versions, selection.names)
    return ImageSet(CORRUPTIONS, versions, selection.labels, selection.digests, None, read, note, files_sha256=files)


def shifted(
    name: str,
    images: Source | str | PathLike,
    num_classes: int,
    selection: Selection,
    crop_pct: float,
    interpolation: str,
    n_examples: int | None = None,
    seed: int = 0,
    class_names: Sequence[str] | str | PathLike | None = None,
    skip_corrupt: bool = False,
    verbose: bool = False,
) -> ImageSet:
    """Another data set of the classes of the model or of some of them, such as ImageNet-A, -R, -V2 or -Sketch.

    Where it has fewer classes than the model, the answer is the largest logit of these, as in the publications
    (Hendrycks et al. 2021, "Natural adversarial examples", section 3, for 200 of ImageNet's classes).

    Args:
        name: of it.
        images: what `open_dataset` takes.
        class_names: names of the model's outputs; if not given, those that the images attacked are called by.
        n_examples: the most images; all of them if not given.

    Raises:
        ValueError: the name is none, or the images or their classes are not as `select` wants them. Classes that the
            images attacked do not have are refused, but for whole numbers, which count as the model's outputs.
    """
    if not re.fullmatch(NAME, name) or name == CORRUPTIONS:
        raise ValueError(
            f"shifts must have names of letters, digits, '_', '.' and '-' that begin with one of the first three; "
            f"received {name!r}."
        )
    source = open_dataset(images)
    numbered = _are_numbers(source.class_names) and not _are_numbers(selection.outputs)
    if class_names is None and selection.matched_by == "order" and not numbered:
        class_names = selection.outputs
    # All of them are those that can be read.
    count = None if n_examples is not None and n_examples >= len(source) else n_examples
    try:
        chosen = select(source, num_classes, count, seed, class_names, None, skip_corrupt, verbose)
    except ValueError as error:
        raise ValueError(f"shifts[{name!r}]: {error}") from error
    aliases = None if class_names is None else read_class_names(class_names)
    outputs = np.unique(match_classes(source.class_names, num_classes, aliases).outputs)

    def read(place: int, _: str, resolution: int) -> np.ndarray:
        return resize_and_crop(source.image(int(chosen.index[place])), resolution, crop_pct, interpolation)

    part = None if len(outputs) == num_classes else outputs
    skipped = len(chosen.skipped)
    note = [
        *([] if part is None else [f"the answer is the largest of {len(outputs)} logits"]),
        *([f"{skipped} images could not be read"] if skipped else []),
        *([source.note] if source.note else []),
    ]
    return ImageSet(
        name,
        (AS_THEY_ARE,),
        chosen.labels,
        chosen.digests,
        part,
        read,
        "; ".join(note),
        chosen.matched_by,
        skipped,
    )


def _are_numbers(class_names: Sequence[str]) -> bool:
    return all(map(is_number, class_names))


def _files_sha256(folder: Path, versions: Sequence[str], names: Sequence[str]) -> str:
    """One hash of the names and sizes of all files, and of the content of some of each version."""
    found = hashlib.sha256()
    step = -(-len(names) // HASHED)
    for each in versions:
        for place, name in enumerate(names):
            path = folder / each / name
            found.update(f"{each}/{name} {path.stat().st_size}\n".encode())
            if place % step == 0:
                found.update(path.read_bytes())
    return found.hexdigest()


def _versions_in(folder: Path) -> tuple[str, ...]:
    """The corruptions and severities that a folder holds, in the order of the publication."""
    found = tuple(each for each in VERSIONS if (folder / each).is_dir())
    if not found:
        raise ValueError(
            f"corruptions must be a folder of <corruption>/<severity>/<class>/<file>, as gaussian_noise/1 to "
            f"{list(ALEXNET)[-1]}/{SEVERITIES[-1]}; {str(folder)!r} holds none of these."
        )
    return found
