"""Names for what is passed around, for annotations."""

from os import PathLike
from typing import Any, TypeAlias

import numpy as np

# A tensor of the active Keras backend. Keras publishes no type that holds for all three.
Tensor: TypeAlias = Any
Array: TypeAlias = np.ndarray
Path: TypeAlias = str | PathLike[str]
