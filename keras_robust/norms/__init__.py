"""The geometry of each norm: its ball intersected with the box of valid pixels, and hyperplanes inside the box."""

from keras_robust.norms.base import LARGEST_RADIUS, Norm, choose, on_8_bit_grid, per_example, radius
from keras_robust.norms.l0 import L0, L0Pixels
from keras_robust.norms.l1 import L1
from keras_robust.norms.l2 import L2
from keras_robust.norms.linf import Linf

__all__ = ["LARGEST_RADIUS", "NORMS", "Norm", "choose", "on_8_bit_grid", "per_example", "radius"]

NORMS: dict[str, Norm] = {"Linf": Linf(), "L2": L2(), "L1": L1(), "L0": L0(), "L0-pixels": L0Pixels()}
