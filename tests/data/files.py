"""Small image files that tests write: photographs' crops, so that decoders and filters see something real."""

import numpy as np
from PIL import Image

import keras_robust.data as data


def photographs(n, split="train"):
    """`n` real crops of 48 to 96 px, uint8, of all ten classes in turn, and their labels."""
    source = data.photo_crops(split, per_class=-(-n // 10))
    indices = [i % 10 * (len(source) // 10) + i // 10 for i in range(n)]
    return [source.image(i) for i in indices], source.labels[indices]


def image_folder(root, n=24, quality=95):
    """A folder of JPEGs, `n` in three classes of unequal size; returns its root."""
    for i, image in enumerate(photographs(n)[0]):
        path = root / "train" / ("a" if i < n // 2 else "b" if i < 3 * n // 4 else "c") / f"{i:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(image)).save(path, quality=quality)
    return root
