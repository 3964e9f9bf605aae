"""Sources of images with masks: folders and tar archives in the layouts of CamVid, of Pascal VOC and of ADE20K."""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np

from keras_robust.checks import check_choice, check_count
from keras_robust.data.preprocessing import MAX_PIXELS, decode, pillow
from keras_robust.data.sources.tar import MAX_MEMBER_BYTES, SUFFIXES, open_tar
from keras_robust.dense_labels import IGNORED
from keras_robust.files import printable, read_file

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Layout:
    """Where a data set keeps its images and masks, and what its masks mean.

    Attributes:
        images, masks: folders, with `{split}` where they depend on it; a mask is called as its image, with `.png`.
        split_list: file with the names of a split, one a line; None where a folder has one split.
        ignored: the value of pixels that belong to no class.
        class_names: in the order of their values in the masks.
        split_names: what folders call a split, where that is not its usual name.
    """

    images: str
    masks: str
    split_list: str | None
    ignored: int
    class_names: tuple[str, ...]
    split_names: Mapping[str, str] = field(default_factory=dict)


CAMVID_CLASSES = "sky building pole road pavement tree sign fence car pedestrian cyclist"
VOC_CLASSES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)
LAYOUTS: dict[str, Layout] = {
    "camvid": Layout("{split}", "{split}annot", None, ignored=11, class_names=tuple(CAMVID_CLASSES.split())),
    "voc": Layout(
        "JPEGImages",
        "SegmentationClass",
        "ImageSets/Segmentation/{split}.txt",
        ignored=255,
        class_names=tuple(VOC_CLASSES.split()),
    ),
    "ade20k": Layout(
        "images/{split}",
        "annotations/{split}",
        None,
        ignored=255,  # nothing: 0, all that is none of the 150 classes, counts as one
        class_names=("other", *map(str, range(1, 151))),
        split_names={"train": "training", "val": "validation"},
    ),
}


class MaskSource:
    """Images and their masks, by number: `source[i]` is `(image, mask)` at the image's own size.

    Attributes:
        names: of the images, sorted.
        class_names: of the classes.
    """

    def __init__(
        self,
        pairs: dict[str, tuple[str, str]],
        read: Callable[[str], bytes],
        class_names: tuple[str, ...],
        ignored: int,
    ) -> None:
        self.names, self.class_names, self.ignored = sorted(pairs), class_names, ignored
        self._pairs, self._read = pairs, read

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image, uint8 (height, width, 3), and mask, int32 (height, width) with -1 for pixels that do not count.

        Raises:
            ValueError: a file that cannot be read, a mask of another size or with values that are no class.
        """
        image_name, mask_name = self._pairs[self.names[index]]
        image = decode(self._read(image_name), printable(image_name))
        mask = decode_mask(self._read(mask_name), printable(mask_name))
        if mask.shape != image.shape[:2]:
            raise ValueError(
                f"{printable(mask_name)} must be of its image's size, {image.shape[:2]}; received {mask.shape}."
            )
        mask = np.where(mask == self.ignored, IGNORED, mask)
        if mask.max() >= len(self.class_names):
            raise ValueError(
                f"{printable(mask_name)} must hold classes in [0, {len(self.class_names) - 1}] or {self.ignored}, for "
                f"pixels that do not count; received {mask.max()}."
            )
        return image, mask

    @property
    def sha256(self) -> str:
        """Hash of the names and the bytes of all files, in hexadecimal digits."""
        digest = hashlib.sha256(f"{self.class_names}{self.ignored}".encode())
        for name in self.names:
            for file in self._pairs[name]:
                content = self._read(file)
                digest.update(f"{file} {len(content)}\n".encode())
                digest.update(content)
        return digest.hexdigest()

    def arrays(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """All images, uint8 (n, height, width, 3), and masks, int32 (n, height, width), resized."""
        size = (check_count("height", height), check_count("width", width))
        pairs = [resized(*self[i], size) for i in range(len(self))]
        return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


def source(path: str | PathLike, split: str = "train", layout: str = "camvid") -> MaskSource:
    """The images and masks of a split of a data set, in a folder or a tar archive, which is never unpacked to disk.

    Args:
        path: of the folder, or of the `.tar` (`.gz`, `.xz`).
        split: "train", "val" or "test"; of VOC any list there is, as "trainval".
        layout: "camvid" (`train/NAME.jpg`, `trainannot/NAME.png`) or "voc" (`JPEGImages/NAME.jpg`,
            `SegmentationClass/NAME.png`, `ImageSets/Segmentation/train.txt`) or "ade20k" (`images/training/NAME.jpg`,
            `annotations/training/NAME.png`, as in ADEChallengeData2016). Masks are PNG files of class numbers,
            with or without a palette.

    Raises:
        ValueError: there is no such file, layout or split, or an image without a mask.

    Example:
        >>> camvid = kr.segmentation.source("camvid.tar", "train")  # a file to download  # doctest: +SKIP
        >>> image, mask = camvid[0]  # doctest: +SKIP
    """
    row: Layout = LAYOUTS[check_choice("layout", layout, LAYOUTS)]
    files, read = _files(Path(path))
    folder_name = row.split_names.get(split, split)
    images, masks = (folder.format(split=folder_name) + "/" for folder in (row.images, row.masks))
    names = {file[len(images) :] for file in files if file.startswith(images)}
    names = {name for name in names if "/" not in name and name.lower().endswith(IMAGE_SUFFIXES)}
    if row.split_list is not None:
        list_name = row.split_list.format(split=split)
        if list_name not in files:
            raise ValueError(f"split must be one that {printable(path)} has; there is no {list_name}.")
        wanted = {line.strip() for line in read(list_name).decode("utf-8").splitlines() if line.strip()}
        missing = sorted(wanted - {Path(name).stem for name in names})
        if missing:
            raise ValueError(f"{printable(path)} lacks {len(missing)} images of {list_name}: {', '.join(missing[:5])}.")
        names = {name for name in names if Path(name).stem in wanted}
    if not names:
        raise ValueError(f"{printable(path)} has no images in {images}: split={split!r}, layout={layout!r}.")
    pairs = {name: (images + name, f"{masks}{Path(name).stem}.png") for name in names}
    without = sorted(name for name, (_, mask) in pairs.items() if mask not in files)
    if without:
        raise ValueError(f"{printable(path)} lacks the masks of {len(without)} images: {', '.join(without[:5])}.")
    return MaskSource(pairs, read, row.class_names, row.ignored)


def pairs_sha256(pairs: MaskSource | Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    """Hash of images and masks and of their order, in hexadecimal digits: of a source, that of its files."""
    if isinstance(pairs, MaskSource):
        return pairs.sha256
    digest = hashlib.sha256()
    for pair in pairs:
        for array in map(np.ascontiguousarray, pair):
            digest.update(f"{array.shape}{array.dtype}\n".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def decode_mask(content: bytes, name: str = "the mask") -> np.ndarray:
    """The class numbers in a PNG file, int32 (height, width): grey values, or positions in its palette.

    Raises:
        ValueError: no image, one of colours, or a larger one than `MAX_PIXELS`; the message has the `name`.
    """
    images, _ = pillow()
    try:
        with images.open(io.BytesIO(content)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(f"{picture.width} x {picture.height} pixels are more than the {MAX_PIXELS:,} accepted")
            if picture.mode not in ("L", "P", "I", "I;16"):
                raise ValueError(f"a mask has one number for each pixel; received an image of mode {picture.mode}")
            return np.asarray(picture).astype("int32")
    except Exception as error:  # Pillow passes on whatever a parser met
        raise ValueError(f"{name} cannot be read as a mask: {error}") from error


def resized(image: np.ndarray, mask: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image and its mask at (height, width): Pillow's bilinear filter, and the nearest pixel."""
    images, _ = pillow()
    if image.shape[:2] == size:
        return image, mask
    target, filters = (size[1], size[0]), images.Resampling
    mask = np.asarray(images.fromarray(mask.astype("int32")).resize(target, filters.NEAREST))
    return np.asarray(images.fromarray(image).resize(target, filters.BILINEAR)), mask


def resized_and_cropped(image: np.ndarray, mask: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image and its mask, resized so that they just cover (height, width), and cropped to it at the centre.

    So the published models are evaluated (Croce, Singh & Hein 2024, code).

    Example:
        >>> image, mask = resized_and_cropped(np.zeros((240, 360, 3), "uint8"), np.ones((240, 360), "int32"), (60, 60))
        >>> image.shape, mask.shape
        ((60, 60, 3), (60, 60))
    """
    factor = max(wanted / length for wanted, length in zip(size, mask.shape))
    height, width = (max(wanted, int(factor * length)) for wanted, length in zip(size, mask.shape))
    image, mask = resized(image, mask, (height, width))
    top, left = round((height - size[0]) / 2), round((width - size[1]) / 2)
    rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
    return image[rows, columns], mask[rows, columns]


def _files(path: Path) -> tuple[set[str], Callable[[str], bytes]]:
    """The names of all files, with slashes, and what reads one."""
    if path.is_dir():
        files = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
        return files, lambda name: read_file(path / name, MAX_MEMBER_BYTES)
    if not path.is_file() or not path.name.endswith(SUFFIXES):
        raise ValueError(f"path must be a folder or a tar archive; received {str(path)!r}.")
    content, members = open_tar(path)
    return set(members), lambda name: content.read(*members[name])
