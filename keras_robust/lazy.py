"""Packages whose parts are imported when they are first asked for: Keras and a framework take seconds to import."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_attributes(
    package: str, modules: Mapping[str, tuple[str, ...]], subpackages: tuple[str, ...] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        package: its `__name__`.
        modules: module -> the names that the package offers from it.
        subpackages: modules and packages below it that it offers as they are.

    Example:
        >>> __getattr__, __dir__ = lazy_attributes("keras_robust", {"keras_robust.threat": ("ThreatModel",)})
        >>> __getattr__("ThreatModel")("Linf", 4 / 255)
        ThreatModel(norm='Linf', eps=0.01568627450980392)
    """
    places = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name in places:
            value = getattr(importlib.import_module(places[name]), name)
        elif name in subpackages:
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *places, *subpackages})

    return get, names
