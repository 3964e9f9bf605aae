"""Activation functions."""

import keras

from keras_robust.backend import kernels
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
def gelu(x: Tensor) -> Tensor:
    """Gaussian error linear unit, exact: `x * Phi(x)` with `Phi` the normal distribution function.

    Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016. Registered, so that `Dense(..., activation=gelu)` and
    `Activation(gelu)` save and reload.

    Args:
        x: float tensor of any shape.

    Returns:
        Tensor of the shape and dtype of `x`.

    Example:

    >>> hidden = keras.layers.Dense(384, activation=gelu)
    """
    if isinstance(x, keras.KerasTensor):
        return keras.ops.gelu(x, approximate=False)
    return kernels.gelu(x)
