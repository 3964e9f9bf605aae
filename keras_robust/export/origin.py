"""Origin of a model in a file: an export of this package, which tells what it takes, or other people's."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust.export.metadata import attach
from keras_robust.model_graph import is_probabilities
from keras_robust.models.pixel_ranges import PixelRange, stated_range
from keras_robust.types import Tensor

EXPORTED = PixelRange(0.0, 1.0)
SMALLEST = 1e-30  # of a probability, so that its logarithm is finite


def range_of(model: keras.layers.Layer, metadata: str | None, pixels: Any) -> PixelRange:
    """What pixels in [0, 1] are normalised with before a model read from a file, which gets what its metadata tell.

    Args:
        metadata: the text of its `metadata.json`; None in files of other origin.
        pixels: as stated by the user: see `keras_robust.adapt`.

    Raises:
        ValueError: nothing tells what it takes, or both do, or the metadata are damaged.
    """
    if metadata is not None:
        if pixels is not None:
            raise ValueError(f"pixels is for files of other origin, and this one tells; received {pixels!r}")
        attach(model, metadata)
        return EXPORTED
    if pixels is None:
        raise ValueError(
            "it is no export of this package and does not tell what it takes: give pixels, '0..1', '0..255', '-1..1', "
            "'imagenet', 'applications:NAME' or (mean, std)"
        )
    return stated_range(pixels)


def normalized(x: Tensor, taken: PixelRange) -> Tensor:
    """Images, pixels in [0, 1], as a model takes them."""
    x = ops.flip(x, -1) if taken.reverse else x
    return (x - np.asarray(taken.mean, "float32")) / np.asarray(taken.std, "float32")


def logarithms(outputs: np.ndarray) -> np.ndarray:
    """Logits of a net that returns probabilities."""
    return np.log(np.maximum(outputs, SMALLEST))


def gives_probabilities(outputs: np.ndarray) -> bool:
    """Whether what a net returned for random images, (n, classes) or (n, height, width, classes), are probabilities.

    Raises:
        ValueError: it is not one score per class, of images or of pixels, or not finite.
    """
    if outputs.ndim not in (2, 4) or outputs.shape[-1] < 2 or not np.issubdtype(outputs.dtype, np.floating):
        raise ValueError(f"it must return one score per class; it returned {outputs.dtype} of shape {outputs.shape}")
    if not np.isfinite(outputs).all():
        raise ValueError("what it returns is not finite")
    return is_probabilities(outputs)
