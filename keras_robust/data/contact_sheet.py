"""A picture of a data source, to see what a model is given."""

from os import PathLike
from pathlib import Path

import numpy as np

from keras_robust.data.preprocessing import resize_and_crop
from keras_robust.data.sources import Source


def contact_sheet(source: Source, path: str | PathLike, per_class: int = 12, resolution: int = 64) -> Path:
    """Write a PNG with one row per class: its name and its first images.

    Args:
        source: the images.
        path: of the file to write.
        per_class: number of images in a row, fewer where the class has fewer.
        resolution: side at which each image is shown, in pixels; larger than the image, it is enlarged.

    Returns:
        The path.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ImportError("Contact sheets are drawn by Pillow: pip install 'keras-robust[quickstart]'") from error
    gap, font = 4, ImageFont.load_default(14)
    margin = 3 * gap + max(int(font.getlength(name)) for name in source.class_names)
    cell = resolution + gap
    sheet = Image.new("RGB", (margin + per_class * cell, gap + len(source.class_names) * cell), "white")
    draw = ImageDraw.Draw(sheet)
    for label, name in enumerate(source.class_names):
        top = gap + label * cell
        draw.text((gap, top + resolution // 2), name, fill="black", font=font, anchor="lm")
        for column, index in enumerate(np.flatnonzero(source.labels == label)[:per_class]):
            image = resize_and_crop(source.image(index), resolution, crop_ratio=1.0)
            sheet.paste(Image.fromarray(image), (margin + column * cell, top))
    sheet.save(path)
    return Path(path)
