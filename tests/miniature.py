"""Programs written for people, run in seconds: pages' snippets, notebooks and examples, on little data and small nets.

What is written is executed as it stands, but for the numbers in `SMALLER`, the nets in `NETS` and the bundled
photographs, of which there are few.
"""

import ast
import dataclasses
import types

import keras

from keras_robust.attacks import versions
from keras_robust.data.sources.photo_crops import PhotoCrops
from keras_robust.export import exporter
from keras_robust.export.reference import VerificationSettings
from keras_robust.models import registry

# Arguments and constants by name, and the most that they may be.
SMALLER = {
    "epochs": 2,
    "n_iter": 3,
    "n_restarts": 1,
    "n_steps": 2,
    "steps": 3,
    "n_examples": 12,
    "n_queries": 10,
    "batch_size": 16,
}
NETS = {
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)},
    "convnext_atto_convstem": {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8), "conv_stem": (8, 8)},
    "convnext_tiny": {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)},
    "convnext_tiny_convstem": {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8), "conv_stem": (8, 8)},
    "vit_tiny": {"dim": 12, "num_heads": 2, "depth": 1},
}
MOST_CLASSES = 2  # that a targeted attack aims at


@dataclasses.dataclass(frozen=True)
class Untimed(VerificationSettings):
    """Verification that no other work on the machine makes fail."""

    seconds: float = 0.1
    min_throughput: float = 0.0


class _Smaller(ast.NodeTransformer):
    def visit_keyword(self, node):
        self.generic_visit(node)
        return self._bounded(node, node.arg)

    def visit_Assign(self, node):
        self.generic_visit(node)
        return self._bounded(node, node.targets[0].id.lower() if isinstance(node.targets[0], ast.Name) else None)

    @staticmethod
    def _bounded(node, name):
        """The node with a smaller value, where the name, or its end as in CLEAN_EPOCHS, stands in `SMALLER`."""
        most = [SMALLER[known] for known in SMALLER if name and name.endswith(known)]
        if most and isinstance(node.value, ast.Constant) and isinstance(node.value.value, int):
            node.value = ast.Constant(min(node.value.value, *most))
        return node


def smaller(text):
    """Python source with the numbers of `SMALLER` at most so large."""
    return ast.unparse(ast.fix_missing_locations(_Smaller().visit(ast.parse(text))))


def _no_network():
    raise OSError("tests have no network")


def prepare(monkeypatch, folder):
    """Make photographs few, nets small and CIFAR-10 out of reach, and work in `folder`."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", _no_network)
    monkeypatch.setattr(PhotoCrops, "PER_CLASS", {"train": 5, "val": 3})
    for name, small in NETS.items():
        monkeypatch.setitem(registry.ARCHITECTURES, name, dataclasses.replace(registry.ARCHITECTURES[name], **small))
    monkeypatch.setattr(exporter, "VerificationSettings", Untimed)
    monkeypatch.setattr(versions, "MINIMAL_STEPS", 10)
    monkeypatch.setattr(versions, "SEARCH_STEPS", 2)
    for attack, (kind, settings) in versions.ATTACKS.items():
        fewer = {name: min(value, SMALLER[name]) for name, value in settings.items() if name in SMALLER}
        targets = {name: MOST_CLASSES for name in settings if name == "n_target_classes"}
        monkeypatch.setitem(versions.ATTACKS, attack, (kind, {**settings, **fewer, **targets}))


def run(name, blocks):
    """Execute blocks of source one after the other in one module.

    Args:
        name: of the module.
        blocks: texts with the lines that they begin at.
    """
    module = types.ModuleType(name)
    for line, text in blocks:
        code = compile(smaller(text), f"{name}:{line}", "exec")
        exec(code, module.__dict__)
