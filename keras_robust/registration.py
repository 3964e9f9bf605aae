"""Registration of this package's layers and models with Keras, as soon as both are imported.

`keras.models.load_model` finds a class only if its module was imported. Importing all of it with the package would
bring Keras and a framework into processes that need neither: workers of the input pipeline, `keras-robust --help`.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

REGISTERED = (
    "keras_robust.layers",
    "keras_robust.training",
    "keras_robust.segmentation.resizing",
    "keras_robust.segmentation.objective",
)


def register() -> None:
    """Imports the modules that register their classes."""
    for name in REGISTERED:
        importlib.import_module(name)


class RegisterOnImport:
    """Entry of `sys.meta_path` that registers after the first import that leaves both Keras and this package whole.

    Modules of this package import Keras themselves, and must be whole before the layers import them in turn.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "keras" and not name.startswith("keras_robust."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path and "keras" in sys.modules and not _half_imported(besides=module):
                    sys.meta_path.remove(self)
                    register()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _half_imported(besides: ModuleType) -> bool:
    ours = [module for name, module in list(sys.modules.items()) if name.startswith("keras_robust.")]
    return any(getattr(module.__spec__, "_initializing", False) for module in ours if module is not besides)


def register_with_keras() -> None:
    """Registers now or, where Keras is not imported yet, when it is."""
    if "keras" in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, RegisterOnImport())
