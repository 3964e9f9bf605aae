"""The package as a whole: who imports whom, what an import needs, what is public."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_robust as kr

ROOT = Path(kr.__file__).parent
FRAMEWORKS = {"tensorflow", "jax", "torch", "keras_cv", "tensorflow_datasets"}
# What attacks, training, export and evaluation may all import; then, of each part, what it may import.
FOUNDATION = {
    "types",
    "versions",
    "statistics",
    "robustness",
    "threat",
    "norms",
    "losses",
    "dense_labels",
    "random",
    "checks",
    "batch_checks",
    "model_graph",
    "files",
    "npz",
    "machine",
    "compilation_cache",
    "backend",
    "precision",
    "progress",
}
MAY_IMPORT = {
    "threat": {"random", "norms", "checks", "batch_checks", "model_graph", "backend", "types"},
    "norms": {"norms", "random", "types"},
    "losses": {"checks", "dense_labels", "types"},
    "dense_labels": {"types"},
    "random": {"types"},
    "lazy": set(),
    "versions": set(),
    "progress": set(),
    "statistics": set(),
    "robustness": {"files"},
    "checks": set(),
    "model_graph": {"types"},
    "batch_checks": {"backend", "checks", "dense_labels", "model_graph", "types"},
    "files": {"machine", "types"},
    "npz": {"files"},
    "machine": set(),
    "compilation_cache": {"files", "machine"},
    "precision": {"backend"},
    "types": set(),
    "backend": {"machine", "types"},
    "layers": {"layers", "backend", "checks", "random", "types"},
    "models": {"models", "layers", "weights", *FOUNDATION},
    "weights": {"weights", "layers", "checks", "files", "progress", "types"},
    "attacks": {"attacks", *FOUNDATION},
    "data": {"data", "lazy", "backend", "checks", "files", "npz", "machine", "progress", "random", "types"},
    "training": {"training", "attacks", "data", "models", *FOUNDATION},
    "segmentation": {
        "segmentation",
        "lazy",
        "evaluation",
        "recipes",
        "training",
        "attacks",
        "data",
        "models",
        "layers",
        "weights",
        *FOUNDATION,
    },
    "demo": {"attacks", "data", "models", "threat", "checks"},
    "recipes": {"recipes", "lazy", "training", "attacks", "data", "models", "weights", *FOUNDATION},
    "export": {"export", "attacks", "data", "models", "layers", "weights", *FOUNDATION},
    "evaluation": {"evaluation", "attacks", "data", "export", "models", *FOUNDATION},
}


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _modules():
    return [path for path in sorted(ROOT.rglob("*.py")) if path.parent != ROOT or path.name != "__init__.py"]


@pytest.mark.once
@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_import_only_what_their_place_allows(path):
    relative = path.relative_to(ROOT)
    part = relative.parts[0].removesuffix(".py")
    allowed = MAY_IMPORT.get(part)
    for name in _imports(path):
        if name.split(".")[0] in FRAMEWORKS:
            assert part in {"backend", "data", "weights", "export"}, f"{relative} imports {name}"
        if name.startswith("keras_robust.") and allowed is not None:
            target = name.split(".")[1]
            assert target in allowed or target == part, f"{relative} imports {name}"


def test_trains_with_one_backend_alone(tmp_path):
    """With every other framework and every optional package out of reach, and without what Linux alone has."""
    backend = keras.backend.backend()
    blocked = (FRAMEWORKS | {"skimage", "PIL", "matplotlib", "scipy", "tensorboard"}) - {backend}
    if backend == "tensorflow":
        blocked.discard("tensorboard")  # TensorFlow looks for it
    if backend == "jax":
        blocked.discard("scipy")  # JAX needs it
    script = f"""
import os, sys
for name in ("sched_getaffinity", "pread"):
    vars(os).pop(name, None)
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *where):
        return None if name.split(".")[0] in {sorted(blocked)!r} else self.finder.find_spec(name, *where)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import numpy as np, keras
import keras_robust as kr
net = keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
trainer = kr.AdversarialModel(net, kr.attacks.FGSM(kr.ThreatModel("Linf", 0.1)))
trainer.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
trainer.fit(np.full((2, 4, 4, 3), 0.5, "float32"), np.array([0, 2]), verbose=0)
assert "convnext_atto_convstem" in kr.models.names()
print("trained")
"""
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stdout.endswith("trained\n"), done.stderr[-2000:]


@pytest.mark.once
def test_public_names():
    for name in kr.__all__:
        assert getattr(kr, name).__doc__
    for name in ("APGD", "PGD", "FGSM"):
        assert getattr(kr.attacks, name).__doc__
    assert kr.__version__
