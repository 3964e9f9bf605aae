"""Pictures of data: what a model is given, and what an attack made of it."""

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_robust.data.pipeline import TrainPipeline
from keras_robust.data.preprocessing import resize_and_crop
from keras_robust.data.sources import Source

if TYPE_CHECKING:
    pass


def contact_sheet(
    source: Source | TrainPipeline, path: str | PathLike, per_class: int = 12, resolution: int = 64
) -> Path:
    """Write a PNG with one row per class: its name and its first images.

    Args:
        source: the images; or a training pipeline, to see what its augmentations make of them. A mixed image stands in
            the row of the class that has the largest share in its label.
        path: of the file to write.
        per_class: number of images in a row, fewer where the class has fewer.
        resolution: side at which each image is shown, in pixels; larger than the image, it is enlarged.

    Returns:
        The path.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ImportError("Contact sheets are drawn by Pillow: pip install 'keras-robust[images]'") from error
    if isinstance(source, TrainPipeline):
        class_names, rows = source.source.class_names, _augmented(source, per_class)
    else:
        class_names, rows = source.class_names, _originals(source, per_class)
    gap, font = 4, ImageFont.load_default(14)
    margin = 3 * gap + max(int(font.getlength(name)) for name in class_names)
    cell = resolution + gap
    sheet = Image.new("RGB", (margin + per_class * cell, gap + len(class_names) * cell), "white")
    draw = ImageDraw.Draw(sheet)
    for label, name in enumerate(class_names):
        top = gap + label * cell
        draw.text((gap, top + resolution // 2), name, fill="black", font=font, anchor="lm")
        for column, image in enumerate(rows[label]):
            image = resize_and_crop(image, resolution, crop_pct=1.0)
            sheet.paste(Image.fromarray(image), (margin + column * cell, top))
    sheet.save(path)
    return Path(path)


def _originals(source: Source, per_class: int) -> list[list[np.ndarray]]:
    classes = range(len(source.class_names))
    return [[source.image(i) for i in np.flatnonzero(source.labels == label)[:per_class]] for label in classes]


def _augmented(pipeline: TrainPipeline, per_class: int) -> Any:
    """The first images of the pipeline's first epoch, by the class with the largest share in their labels."""
    rows: list[list[np.ndarray]] = [[] for _ in pipeline.source.class_names]
    for step in range(pipeline.steps_per_epoch):
        images, labels = pipeline.finished(step)
        for image, label in zip(images, labels.argmax(axis=1)):
            if label < len(rows) and len(rows[label]) < per_class:
                rows[label].append(np.round(image * 255).astype(np.uint8))
        if all(len(row) == per_class for row in rows):
            break
    return rows


def amplified_difference(x: np.ndarray, x_adv: np.ndarray) -> np.ndarray:
    """The perturbation of each image, amplified to the full range of pixels.

    Mid-grey is no change; black and white are the largest change in that image.

    Args:
        x, x_adv: float32 arrays of shape (n, height, width, channels) in [0, 1].

    Returns:
        A float32 array of the same shape in [0, 1].

    Example:
        >>> round(float(amplified_difference(x, x + 0.01).mean()), 3)
        1.0
    """
    difference = x_adv - x
    largest = np.abs(difference).max(axis=(1, 2, 3), keepdims=True)
    return 0.5 + 0.5 * difference / np.maximum(largest, np.finfo(np.float32).tiny)


def most_visible(x: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """Places of the images in which a person sees most: of the highest contrast, each of another class if possible.

    Args:
        x: float array of shape (n, height, width, channels).
        labels: class of each, shape (n,).
        count: how many, at most.

    Example:
        >>> most_visible(np.array([[[[0.0], [0.1]]], [[[0.0], [1.0]]], [[[0.0], [0.9]]]]), np.array([0, 1, 1]), 2)
        [1, 0]
    """
    by_contrast = sorted(range(len(x)), key=lambda place: (-float(x[place].std()), place))
    seen: dict[int, int] = {}
    rank = {}
    for place in by_contrast:
        rank[place] = seen[int(labels[place])] = seen.get(int(labels[place]), -1) + 1
    return sorted(by_contrast, key=lambda place: rank[place])[:count]


def attack_sheet(x: np.ndarray, x_adv: np.ndarray, enlarge: int = 1) -> np.ndarray:
    """A picture of an attack: a row of images, a row of what the attack made of them, a row of the difference.

    The difference is amplified to the full range, separately for each image: mid-grey is no change, black and white
    are the largest change in the image.

    Args:
        x, x_adv: float arrays of shape (n, height, width, channels) in [0, 1], with one or three channels.
        enlarge: each pixel becomes a square of this side.

    Returns:
        uint8 array of shape (3 rows, n columns with white gaps of 2 px, 3).
    """
    x, x_adv = np.asarray(x, np.float32), np.asarray(x_adv, np.float32)
    if x.ndim != 4 or x.shape != x_adv.shape:
        raise ValueError(f"x and x_adv must have one shape of rank 4; received shapes {x.shape} and {x_adv.shape}.")
    gap = 2
    cells = np.stack([x, x_adv, amplified_difference(x, x_adv)]).repeat(enlarge, axis=2).repeat(enlarge, axis=3)
    cells = np.pad(cells, [(0, 0), (0, 0), (0, gap), (0, gap), (0, 0)], constant_values=1.0)
    rows, columns, height, width, channels = cells.shape
    sheet = cells.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)[:-gap, :-gap]
    return np.broadcast_to(np.round(sheet * 255), (*sheet.shape[:2], 3)).astype(np.uint8)
