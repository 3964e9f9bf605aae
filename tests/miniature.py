"""Programs written for people, run in seconds: pages' snippets, notebooks and examples, on little data and small nets.

What is written is executed as it stands, but for the numbers in `SMALLER`, the nets in `NETS` and the bundled
photographs, of which there are few.
"""

import ast
import dataclasses
import types

import keras
import numpy as np
from PIL import Image

from keras_robust.attacks import versions
from keras_robust.data.sources.photo_crops import PhotoCrops
from keras_robust.models import registry

# Arguments by name, and the most that they may be.
SMALLER = {"epochs": 1, "n_iter": 3, "n_restarts": 1, "n_steps": 2, "n_examples": 12, "n_queries": 10, "batch_size": 16}
NETS = {
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)},
    "convnext_atto_convstem": {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8), "conv_stem": (8, 8)},
    "convnext_tiny": {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)},
    "convnext_tiny_convstem": {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8), "conv_stem": (8, 8)},
    "vit_tiny": {"dim": 12, "num_heads": 2, "depth": 1},
}
MOST_CLASSES = 2  # that a targeted attack aims at


class _Smaller(ast.NodeTransformer):
    def visit_keyword(self, node):
        self.generic_visit(node)
        if node.arg in SMALLER and isinstance(node.value, ast.Constant) and isinstance(node.value.value, int):
            node.value = ast.Constant(min(node.value.value, SMALLER[node.arg]))
        return node


def smaller(text):
    """Python source with the numbers of `SMALLER` at most so large."""
    return ast.unparse(ast.fix_missing_locations(_Smaller().visit(ast.parse(text))))


def _no_network():
    raise OSError("tests have no network")


def prepare(monkeypatch, folder):
    """Make photographs few, nets small and CIFAR-10 out of reach, and work in `folder`, with `photos/<class>/*.png`."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", _no_network)
    monkeypatch.setattr(PhotoCrops, "PER_CLASS", {"train": 5, "val": 3})
    for name, small in NETS.items():
        monkeypatch.setitem(registry.ARCHITECTURES, name, dataclasses.replace(registry.ARCHITECTURES[name], **small))
    for attack, (kind, settings) in versions.ATTACKS.items():
        fewer = {name: min(value, SMALLER[name]) for name, value in settings.items() if name in SMALLER}
        targets = {name: MOST_CLASSES for name in settings if name == "n_target_classes"}
        monkeypatch.setitem(versions.ATTACKS, attack, (kind, {**settings, **fewer, **targets}))
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.png")


def run(name, blocks, **names):
    """Execute blocks of source one after the other in one module.

    Args:
        name: of the module.
        blocks: texts with the lines that they begin at.
        names: what the module knows before.

    Returns:
        What it knows afterwards.
    """
    module = types.ModuleType(name)
    module.__dict__.update(names)
    for line, text in blocks:
        code = compile(smaller(text), f"{name}:{line}", "exec")
        exec(code, module.__dict__)
    return module.__dict__
