"""Attacks of adv-lib and Foolbox, other implementations to compare with, where they are installed.

Both import packages that their attacks do not need, for pictures and for downloading models: those that are missing
are replaced by empty modules.
"""

import importlib.util
import sys
import types

import numpy as np

UNUSED = ("git", "visdom")


class Missing(Exception):
    """A library that is not installed."""


def _stand_in(names):
    for name in names:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__getattr__ = lambda attribute: object


def adv_lib(module, function):
    """A function of `adv_lib.attacks.<module>`, by its file: importing the whole package takes torchvision."""
    package = importlib.util.find_spec("adv_lib")
    if package is None:
        raise Missing("adv-lib is not installed")
    _stand_in(UNUSED)
    if "adv_lib.attacks" not in sys.modules:
        stub = types.ModuleType("adv_lib.attacks")
        stub.__path__ = [f"{package.submodule_search_locations[0]}/attacks"]
        sys.modules["adv_lib.attacks"] = stub
    return getattr(importlib.import_module(f"adv_lib.attacks.{module}"), function)


def foolbox():
    """The package Foolbox."""
    if importlib.util.find_spec("foolbox") is None:
        raise Missing("Foolbox is not installed")
    _stand_in(UNUSED)
    return importlib.import_module("foolbox")


def distances(norm, x_adv, x):
    """Norms of perturbations, in float64, from numpy arrays (n, ...)."""
    delta = (x_adv.astype("float64") - x).reshape(len(x), -1)
    return np.linalg.norm(delta, {"Linf": np.inf, "L2": 2, "L1": 1, "L0": 0}[norm], axis=1)
