"""Threat models: a norm and a radius."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust import backend, random
from keras_robust.batch_checks import check_images
from keras_robust.checks import check_choice, check_count
from keras_robust.norms import LARGEST_RADIUS, NORMS


@dataclass(frozen=True)
class ThreatModel:
    """A threat model: an adversary may move an image by at most `eps` in a norm, inside the pixel range [0, 1].

    Args:
        norm: "Linf", "L2", "L1", "L0" (the number of values that change) or "L0-pixels" (of pixels, all channels at
            once).
        eps: radius >= 0, in units of pixels in [0, 1], under L0 a number. On ImageNet: 4/255 for Linf, 2 for L2, 75
            for L1 (Singh et al. 2023, section 4). None or `math.inf`: no bound but the box, for attacks that look for
            the nearest point.

    Raises:
        ValueError: unknown norm, a radius that is negative or NaN, or a finite one above 1 under Linf; above 0.5, which
            no image survives, it is a warning.

    Images are float arrays of shape (batch, height, width, channels); numpy in gives numpy out, backend tensors
    give backend tensors.

    Example:
        >>> threat = ThreatModel("Linf", 4 / 255)
        >>> x_adv = threat.project(x + 0.1, x)
        >>> bool((threat.perturbation_norm(x_adv - x) <= 4 / 255 + 1e-6).all())
        True
    """

    norm: str
    eps: Any

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, NORMS)
        if self.eps is None:
            object.__setattr__(self, "eps", math.inf)
        if not isinstance(self.eps, Real) or isinstance(self.eps, bool):
            raise ValueError(f"eps must be a real number >= 0; received {self.eps!r}.")
        try:
            eps = float(self.eps)
        except OverflowError:  # of integers that are too large for any float
            eps = math.nan
        if not eps >= 0:
            raise ValueError(f"eps must be a number >= 0, or inf for no bound; received {self.eps!r}.")
        object.__setattr__(self, "eps", eps)
        if self.norm == "Linf" and 0.5 < eps < math.inf:
            meant = f" Pixels lie in [0, 1]: a radius of {self.eps:g} grey levels of 255 is eps={self.eps:g}/255."
            if eps > 1:
                raise ValueError(f"eps must be at most 1 under Linf; received {self.eps:g}.{meant}")
            warnings.warn(f"eps={self.eps:g} under Linf turns any image into any grey.{meant}", stacklevel=3)

    def __str__(self) -> str:
        multiple = self.eps * 255
        whole = self.norm == "Linf" and 0 < self.eps <= 1 and abs(multiple - round(multiple)) < 1e-6
        return f"{self.norm} {round(multiple)}/255" if whole else f"{self.norm} {self.eps:g}"

    @classmethod
    def parse(cls, text: str) -> "ThreatModel":
        """The threat model written NORM:EPS, with a radius that may be a fraction; the inverse of `spec`.

        Raises:
            ValueError: the text is of another form.

        Example:
            >>> kr.ThreatModel.parse("Linf:4/255") == kr.ThreatModel("Linf", 4 / 255)
            True
        """
        norm, colon, radius = str(text).strip().partition(":")
        numerator, slash, denominator = radius.partition("/")
        try:
            eps = float(numerator) / (float(denominator) if slash else 1.0)
        except (ValueError, ZeroDivisionError):
            colon = ""
        # Only the word is no bound: a number too large for a float is a slip.
        if not colon or (math.isinf(eps) and radius.strip().lower() != "inf"):
            raise ValueError(
                f"threat must be written NORM:EPS, as Linf:4/255, L2:0.5, or L2:inf for no bound; received {text!r}."
            )
        return cls(norm, eps)

    @property
    def spec(self) -> str:
        """The threat model as `parse` reads it, such as "Linf:4/255"."""
        text = str(self).replace(" ", ":")
        return text if self.parse(text) == self else f"{self.norm}:{self.eps!r}"

    @property
    def is_bounded(self) -> bool:
        """Whether there is a radius at all."""
        return math.isfinite(self.eps)

    @property
    def bound(self) -> float | None:
        """`eps` as JSON can say it: None where there is no bound."""
        return self.eps if self.is_bounded else None

    @property
    def radius(self) -> float:
        """`eps` as a number that float32 can compute with."""
        return min(self.eps, LARGEST_RADIUS)

    def check_images(self, shape: Sequence[int]) -> None:
        """Refuses a radius by which every image of a shape (height, width, channels) can become every other.

        Raises:
            ValueError: the radius is as large as the box of all images; it was probably meant for pixels up to 255.
        """
        diameter = self.geometry.diameter(shape)
        if self.norm != "Linf" and diameter <= self.eps < math.inf:
            raise ValueError(
                f"eps must be below {diameter:g} under {self.norm} for images of shape {tuple(shape)} with pixels in "
                f"[0, 1], the largest distance there is; received {self.eps:g}."
            )

    @property
    def geometry(self) -> Any:
        """The `Norm` behind the name: functions that take the radius as an argument."""
        return NORMS[self.norm]

    def perturbation_norm(self, delta: np.ndarray) -> np.ndarray:
        """Norm of each example of `delta` (batch, ...), shape (batch,)."""
        return self._call(self.geometry.of, delta)

    def project(self, x_adv: Any, x: Any) -> np.ndarray:
        """Nearest point to `x_adv` (Euclidean) in the ball around `x` and in [0, 1], exact for each norm.

        Points already inside come back unchanged, bit for bit.

        Raises:
            ValueError: images of another kind or shape, NaN in `x_adv`, pixels of `x` outside [0, 1]. (Inside a
                compiled function values cannot be checked.)
        """
        self._check_pair(x_adv, x)
        if backend.concrete(x_adv) and np.isnan(ops.convert_to_numpy(x_adv)).any():
            raise ValueError("x_adv must be numbers; received NaN.")
        return self._call(lambda a, b: self.geometry.project(a, b, self.radius), x_adv, x)

    def contains(self, x_adv: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Whether each example of `x_adv` lies in the ball around `x` and in [0, 1]; booleans of shape (batch,)."""
        self._check_pair(x_adv, x)
        return self._call(lambda a, b: self.geometry.contains(a, b, self.radius), x_adv, x)

    def random_start(self, x: np.ndarray, seed: int = 0) -> np.ndarray:
        """A random point of the ball around each image, inside [0, 1], float32; fixed by the seed and the position."""
        self._check_pair(x, x)
        keys = random.example_keys(check_count("seed", seed, least=0), 0, ops.arange(np.shape(x)[0], dtype="int32"))
        return self._call(lambda a: self.geometry.random(keys, ops.cast(a, "float32"), self.radius), x)

    def step(self, gradient: np.ndarray) -> np.ndarray:
        """Direction of steepest ascent of unit size for each example of `gradient`."""
        return self._call(self.geometry.step, gradient)

    def get_config(self) -> dict[str, Any]:
        return {"norm": self.norm, "eps": self.bound}

    @staticmethod
    def _check_pair(x_adv: Any, x: Any) -> None:
        for name, images in (("x_adv", x_adv), ("x", x)):
            _check_floats(name, images)
        if tuple(x_adv.shape) != tuple(x.shape):
            raise ValueError(
                f"x_adv and x must have the same shape; received {tuple(x_adv.shape)} and {tuple(x.shape)}."
            )
        if backend.concrete(x):
            check_images(x)

    @staticmethod
    def _call(function: Callable, *images: Any) -> np.ndarray:
        for each in images:
            _check_floats("images", each)
        dtype = keras.backend.standardize_dtype(images[0].dtype)
        result = function(*(ops.convert_to_tensor(image, dtype=dtype) for image in images))
        return ops.convert_to_numpy(result) if isinstance(images[0], np.ndarray) else result


def _check_floats(name: str, images: Any) -> None:
    shape, dtype = getattr(images, "shape", None), str(getattr(images, "dtype", type(images).__name__))
    if shape is None or len(shape) != 4 or "float" not in dtype:
        received = f"dtype {dtype}" + ("" if shape is None else f" and shape {tuple(shape)}")
        raise ValueError(f"{name} must be floats (batch, height, width, channels); received {received}.")
