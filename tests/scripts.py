"""The scripts of `recipes/` and `tools/` as modules."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def load(path):
    """The module of a script, from its path below the project's root, such as "tools/export.py"."""
    path = ROOT / path
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
