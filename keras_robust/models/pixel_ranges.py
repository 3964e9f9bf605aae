"""Ranges of pixels that nets take: stated, or told by the nets themselves."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_robust.checks import did_you_mean
from keras_robust.layers import ImageInput
from keras_robust.model_graph import first_layers, takes_bytes

APPLICATIONS = "applications:"
# Name -> (mean, standard deviation) that pixels in [0, 1] are normalised with, per channel or for all.
PIXELS: dict[str, tuple[Any, Any]] = {
    "0..1": (0.0, 1.0),
    "0..255": (0.0, 1 / 255),
    "-1..1": (0.5, 0.5),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


@dataclass(frozen=True)
class PixelRange:
    """What brings pixels in [0, 1] to what a net takes.

    Attributes:
        mean, std: they are normalised with, numbers per channel or for all.
        reverse: whether the net takes BGR; `mean` and `std` are in its order.
    """

    mean: Any
    std: Any
    reverse: bool = False


def pixel_range(net: keras.Layer, pixels: Any) -> PixelRange:
    """The range of the pixels that a net takes, as stated or as it tells.

    Args:
        pixels: see `keras_robust.adapt`.

    Raises:
        ValueError: nobody tells, or both do and differ.
    """
    told = _told_by(net)
    if pixels is None:
        if told is None:
            raise ValueError(
                f"pixels must be given, as {net.name!r} does not tell what it takes: {', '.join(map(repr, PIXELS))}, "
                "'applications:NAME' or (mean, std); received None."
            )
        return PixelRange(*told)
    chosen = stated_range(pixels)
    stated = (chosen.mean, chosen.std)
    by_name = isinstance(pixels, str) and pixels.startswith(APPLICATIONS)
    if (
        told is not None
        and not (by_name and takes_bytes(net))
        and not all(np.allclose(a, b, rtol=1e-3) for a, b in zip(stated, told))
    ):
        raise ValueError(
            f"pixels must be what the model tells, or left out: it begins with a rescaling, or has a preprocessor, for "
            f"mean {told[0]} and standard deviation {told[1]} of pixels in [0, 1]; received {pixels!r}."
        )
    return chosen


def stated_range(pixels: Any) -> PixelRange:
    """The range that `pixels` states: see `keras_robust.adapt`.

    Raises:
        ValueError: it states none.
    """
    if isinstance(pixels, str) and pixels.startswith(APPLICATIONS):
        return _of_application(pixels.removeprefix(APPLICATIONS))
    if isinstance(pixels, str):
        if pixels not in PIXELS:
            raise ValueError(
                f"pixels must be one of {', '.join(map(repr, PIXELS))}, 'applications:NAME' or (mean, std); received "
                f"{pixels!r}."
            )
        return PixelRange(*PIXELS[pixels])
    try:
        mean, std = pixels
        return PixelRange(np.asarray(mean, "float64"), np.asarray(std, "float64"))
    except (TypeError, ValueError):
        raise ValueError(f"pixels must be a name or a pair (mean, std); received {pixels!r}.") from None


def _told_by(net: keras.Layer) -> tuple[Any, Any] | None:
    """(mean, std) where the net or its preprocessor says what it takes."""
    converter = getattr(getattr(net, "preprocessor", None), "image_converter", None)
    if converter is not None:
        scale = 1.0 if converter.scale is None else np.asarray(converter.scale, "float64")
        offset = 0.0 if converter.offset is None else np.asarray(converter.offset, "float64")
        return -offset / (255 * scale) + 0.0, 1 / (255 * scale)
    if takes_bytes(net):
        return PIXELS["0..255"]
    if any(isinstance(layer, ImageInput) for layer in first_layers(net)):
        return PIXELS["0..1"]
    return None


def _of_application(name: str) -> PixelRange:
    """What a function's published weights take, found by trying its `preprocess_input`."""
    function = application(name)
    module = next(
        each
        for each in vars(keras.applications).values()
        if hasattr(each, "preprocess_input") and getattr(each, name, None) is function
    )
    probes = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)])[:, None, None].astype("float32")
    found = np.asarray(module.preprocess_input(probes.copy(), data_format="channels_last"), "float64")[:, 0, 0]
    slopes = found[1:] - found[:1]  # [channel in, channel out], over pixels in [0, 1]
    reverse = slopes[0, 0] == 0
    scale = np.diag(slopes[::-1] if reverse else slopes)
    return PixelRange(-found[0] / scale, 1 / scale, bool(reverse))


def application(name: str) -> Any:
    """The function of `keras.applications` of that name.

    Raises:
        ValueError: there is none.
    """
    functions = [each for each in dir(keras.applications) if each[0].isupper()]
    if name not in functions:
        raise ValueError(
            f"pixels and --model take applications: with one of {', '.join(functions)}; received {name!r}."
            f"{did_you_mean(name, functions)}"
        )
    return getattr(keras.applications, name)
