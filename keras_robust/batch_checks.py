"""Checks of images, labels and models: each raises a ValueError that says what came and what is accepted."""

import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust import backend
from keras_robust.dense_labels import IGNORED
from keras_robust.model_graph import check_logits, check_pixels
from keras_robust.types import Tensor


def check_images(x: Any, name: str = "x") -> Tensor:
    """`x` as a float32 tensor of shape (batch, height, width, channels) with finite values in [0, 1]."""
    shape = getattr(x, "shape", None)
    if shape is None or len(shape) != 4:
        received = type(x).__name__ if shape is None else f"shape {tuple(shape)}"
        raise ValueError(f"{name} must be images of shape (batch, height, width, channels); received {received}.")
    if 0 in tuple(shape):
        raise ValueError(f"{name} must not be empty; received shape {tuple(shape)}.")
    dtype = str(x.dtype) if isinstance(x, np.ndarray) else keras.backend.standardize_dtype(x.dtype)
    if "float" not in dtype:
        hint = " Divide 8-bit images by 255." if "int" in dtype else ""
        raise ValueError(f"{name} must be floats in [0, 1]; received dtype {dtype}.{hint}")
    x = ops.cast(ops.convert_to_tensor(x), "float32")
    low, high = (float(ops.convert_to_numpy(bound)) for bound in (ops.min(x), ops.max(x)))
    # NaN fails both comparisons.
    if not (low >= 0.0 and high <= 1.0):
        if not np.isfinite([low, high]).all():
            raise ValueError(f"{name} must be finite; received NaN or infinite pixels.")
        raise ValueError(
            f"{name} must be pixels in [0, 1]; received values in [{low:g}, {high:g}]. "
            "Normalisation belongs into the model (models.create(..., normalization=...))."
        )
    return x


def check_labels(y: Any, count: int, classes: int, name: str = "y") -> Tensor:
    """`y` as int32 class indices of shape (count,) or float32 soft labels of shape (count, classes)."""
    try:
        y = np.asarray(y if isinstance(y, (list, tuple)) else ops.convert_to_numpy(y))
    except ValueError as error:
        raise ValueError(f"{name} must be an array of labels; received {y!r:.200}.") from error
    if len(y) != count if y.ndim else True:
        raise ValueError(f"{name} must have one label per image; received shape {y.shape} for {count} images.")
    if y.ndim == 2 and y.shape[1] == 1:  # as keras.datasets gives them
        y = y[:, 0]
    if y.ndim == 1 and np.issubdtype(y.dtype, np.integer):
        if y.min() < 0 or y.max() >= classes:
            raise ValueError(
                f"{name} must be class indices in [0, {classes - 1}], as the model has {classes} outputs; "
                f"received values in [{y.min()}, {y.max()}]."
            )
        return ops.convert_to_tensor(y.astype("int32"))
    if y.ndim == 2 and y.shape[1] == classes and classes > 1:
        y = y.astype("float32")
        good = np.isfinite(y).all(1) & (y >= 0).all(1) & (np.abs(y.sum(1) - 1) <= 1e-3)
        if not good.all():
            raise ValueError(
                f"{name} must be soft labels, rows of numbers >= 0 that sum to 1 (one class each, not several); "
                f"received {y[~good][0]} among others."
            )
        return ops.convert_to_tensor(y)
    raise ValueError(
        f"{name} must be integer class indices of shape ({count},) or soft labels of shape ({count}, {classes}); "
        f"received dtype {y.dtype} and shape {y.shape}."
    )


def check_target(model: Callable, x: Tensor, target: Any) -> Tensor:
    """`target`, one class for all images `x` or one for each, as int32 class indices (batch,)."""
    if isinstance(target, (int, np.integer)) and not isinstance(target, bool):
        target = np.full(x.shape[0], target)
    target = check_labels(target, x.shape[0], class_count(model, x), "target")
    if len(target.shape) != 1:
        raise ValueError(f"target must be a class or class indices (batch,); received shape {tuple(target.shape)}.")
    return target


def check_pixel_labels(y: Any, shape: tuple[int, int, int], classes: int, name: str = "y") -> Tensor:
    """`y` as int32 class indices of each pixel, in the shape (count, height, width) of the images, or -1."""
    received = np.asarray(y if isinstance(y, (list, tuple)) else ops.convert_to_numpy(y))
    if received.shape != tuple(shape) or not np.issubdtype(received.dtype, np.integer):
        raise ValueError(
            f"{name} must be integer class indices of each pixel, of shape {tuple(shape)}, as the model "
            "returns logits of shape (batch, height, width, classes); "
            f"received dtype {received.dtype} and shape {received.shape}."
        )
    if received.min() < IGNORED or received.max() >= classes:
        raise ValueError(
            f"{name} must be class indices in [0, {classes - 1}], as the model has {classes} classes, or {IGNORED} for "
            f"pixels that do not count; received values in [{received.min()}, {received.max()}]. Another number for "
            f"these: y = numpy.where(y == 255, {IGNORED}, y)."
        )
    return ops.convert_to_tensor(received.astype("int32"))


def class_count(model: Callable, x: Tensor, dense: bool = False) -> int:
    """The number of classes of a classifier, from its output shape or, for any callable, from the logits of one image.

    With `dense` it may be one of pixels.

    Raises:
        ValueError: its output is no batch of logits, or probabilities; it takes pixels in another range.
    """
    return check_logits_shape(logits_shape(model, x), dense)


def logits_shape(model: Callable, x: Tensor) -> tuple[Any, ...]:
    """The shape of what a model returns, where it does not tell it, for the first of the images `x`.

    Raises:
        ValueError: its output is probabilities; it takes pixels in another range.
    """
    if isinstance(model, keras.Layer) and not model.built:
        model(x[:1])
    shape = getattr(model, "output_shape", None)
    if not isinstance(shape, tuple):
        shape = _classes.get(model) if isinstance(model, keras.Layer) else None
    if shape is None:
        outputs = backend.compile(lambda frozen, x: frozen(x), model)(x[:1])
        shape = tuple(getattr(outputs, "shape", None) or (type(outputs).__name__,))
        if len(shape) in (2, 4):
            check_logits(model, ops.convert_to_numpy(outputs))
        if isinstance(model, keras.Layer):
            _classes[model] = shape
    elif isinstance(model, keras.Layer) and model not in _checked:
        check_logits(model)
        check_pixels(model)
        _checked.add(model)
    return shape


# Output shapes of models that do not tell theirs: finding out may cost a compilation.
_classes: weakref.WeakKeyDictionary[keras.Layer, tuple] = weakref.WeakKeyDictionary()
# Models whose graphs have been read.
_checked: weakref.WeakSet[keras.Layer] = weakref.WeakSet()


def check_logits_shape(shape: Any, dense: bool = False) -> int:
    """The number of classes from the output shape of a model; with `dense` also of one that classifies each pixel."""
    if not isinstance(shape, tuple) or len(shape) not in ((2, 4) if dense else (2,)) or shape[-1] is None:
        also = " or (batch, height, width, classes)" if dense else ""
        raise ValueError(f"model must return logits of shape (batch, classes){also}; its output is {shape!r}.")
    if shape[-1] < 2:
        raise ValueError(f"model must have at least 2 classes, or nothing can be misclassified; it has {shape[-1]}.")
    return shape[-1]


def check_size_of_logits(shape: tuple[Any, ...], images: Any) -> None:
    """Refuses logits of another size than the images, where the two shapes tell: there is a label for each pixel."""
    sizes = list(zip(shape[1:-1], images[1:-1]))
    if len(shape) != 4 or any(None not in pair and pair[0] != pair[1] for pair in sizes):
        raise ValueError(
            "model must return logits of shape (batch, height, width, classes) at the size of its images, "
            f"{tuple(images[1:-1])}, where y has a class for each pixel; received {shape}."
        )


def check_outputs(logits: Any, x: Tensor, dense: bool = False) -> None:
    """Refuses what is no batch of logits for the images `x`: by its shape and dtype, also while a graph is traced.

    With `dense` there is to be a row of logits for each pixel.

    Raises:
        ValueError: another number of rows than images, which some operations would broadcast without a word; integers
            or booleans, as of a model that rounds its answer or gives classes: no score to attack.
    """
    shape = tuple(getattr(logits, "shape", None) or (type(logits).__name__,))
    check_logits_shape(shape, dense)
    if dense:
        check_size_of_logits(shape, x.shape)
    rows, images = logits.shape[0], x.shape[0]
    if rows is not None and images is not None and rows != images:
        raise ValueError(f"model must return one row of logits per image; received {rows} rows for {images} images.")
    dtype = keras.backend.standardize_dtype(logits.dtype)
    if "float" not in dtype:
        raise ValueError(f"model must return logits, floats of any size; received dtype {dtype}: answers, not scores.")


def check_batch(model: Any, x: Any, y: Any, dense: bool = False) -> tuple[Tensor, Tensor]:
    """Images and labels as tensors that `model` can be attacked on; with `dense` it may classify each pixel."""
    if not callable(model):
        raise ValueError(f"model must be a callable from images to logits; received {model!r}.")
    x = check_images(x)
    taken = getattr(model, "input_shape", None)
    if isinstance(taken, tuple) and len(taken) == 4 and taken[3] not in (None, x.shape[3]):
        raise ValueError(f"x must have {taken[3]} channels, which the model takes; received shape {tuple(x.shape)}.")
    shape = logits_shape(model, x)
    classes = check_logits_shape(shape, dense)
    if len(shape) == 4:
        return x, check_pixel_labels(y, tuple(x.shape[:3]), classes)
    return x, check_labels(y, x.shape[0], classes)
