"""Layers before the stem."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class Normalize(keras.layers.Layer):
    """`(x - mean) / std` per channel, in float32 whatever the precision policy.

    Normalisation is a property of a model, never of the data: attacks work on raw pixels in [0, 1]. Files of weights
    carry the numbers along, and weights learned under others are refused.

    Args:
        mean: one number per channel, in pixel units ([0, 1]).
        std: one positive number per channel, as many as in `mean`.

    Shapes: `(..., channels)` to the same shape.

    Raises:
        ValueError: `mean` and `std` are not sequences of as many finite numbers, or `std` is not positive; at build
            time, the input has another number of channels; on loading weights, the file has none or other numbers.

    Example:

    >>> x = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))(keras.random.uniform((2, 64, 64, 3)))
    """

    def __init__(self, mean: Any, std: Any, dtype: str = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)
        self.mean = _numbers("mean", mean)
        self.std = _numbers("std", std)
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std must have one number per channel each, received mean={mean}, std={std}")
        if not min(self.std) > 0:
            raise ValueError(f"std must be positive, received {std}")

    def build(self, input_shape: Any) -> None:
        if input_shape[-1] != len(self.mean):
            raise ValueError(f"mean and std are for {len(self.mean)} channels, received input_shape={input_shape}")

    def call(self, x: Tensor) -> Any:
        mean, std = (ops.convert_to_tensor(values, dtype=self.compute_dtype) for values in (self.mean, self.std))
        return (x - mean) / std

    def save_own_variables(self, store: Any) -> None:
        store["mean"], store["std"] = np.array(self.mean), np.array(self.std)

    def load_own_variables(self, store: Any) -> None:
        for name, own in (("mean", self.mean), ("std", self.std)):
            stored = np.array(store[name]).tolist() if name in set(store.keys()) else None
            if stored != list(own):
                raise ValueError(f"the model normalises with {name}={own}, the weights belong to {stored}")

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": self.mean, "std": self.std}


@keras.saving.register_keras_serializable("keras_robust")
class ReverseChannels(keras.layers.Layer):
    """The channels in reverse order: RGB to BGR, which nets that come from Caffe take.

    Shapes: `(..., channels)` to the same shape.

    Example:

    >>> float(ReverseChannels()(keras.ops.convert_to_tensor([[1.0, 2.0, 3.0]]))[0, 0])
    3.0
    """

    def call(self, x: Tensor) -> Any:
        return ops.flip(x, axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@keras.saving.register_keras_serializable("keras_robust")
class ImageInput(keras.layers.Layer):
    """First layer of a model: images pass unchanged; those whose height or width the model cannot take are refused.

    Sizes are checked wherever they are known: on eager and symbolic tensors and on static shapes inside compiled
    functions. An unknown size passes.

    Args:
        minimum: smallest height and width, in pixels.
        multiple_of: height and width must be multiples of this many pixels.
        architecture: name of the architecture of the model that begins with this layer; None for other models.
        class_names: names of that model's outputs, in their order; None where they are not known.

    Shapes: `(batch, height, width, channels)` to the same shape.

    Raises:
        ValueError: when called with images of another size; names the size received and the ones accepted.

    Example:

    >>> x = ImageInput(minimum=32)(keras.random.uniform((2, 64, 64, 3)))
    """

    def __init__(
        self,
        minimum: int,
        multiple_of: int = 1,
        architecture: str | None = None,
        class_names: Sequence[str] | None = None,
        dtype: str = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=dtype, **kwargs)
        self.minimum = minimum
        self.multiple_of = multiple_of
        self.architecture = architecture
        self.class_names = None if class_names is None else tuple(class_names)

    def call(self, images: Tensor) -> Any:
        self._check(images.shape)
        return images

    def compute_output_shape(self, input_shape: Any) -> Any:
        self._check(input_shape)
        return input_shape

    def _check(self, shape: Any) -> None:
        height, width = shape[1:3]
        if any(size is not None and (size < self.minimum or size % self.multiple_of) for size in (height, width)):
            rule = f" and multiples of {self.multiple_of}" if self.multiple_of > 1 else ""
            raise ValueError(
                f"images must have a height and a width of at least {self.minimum} pixels{rule}, "
                f"received height={height}, width={width}"
            )

    def get_config(self) -> dict[str, Any]:
        names = ("minimum", "multiple_of", "architecture", "class_names")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _numbers(name: str, values: Any) -> Any:
    array = np.asarray(values, dtype="float64") if not isinstance(values, str) else np.array(np.nan)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a sequence of finite numbers, one per channel, received {values!r}")
    return tuple(array.tolist())
