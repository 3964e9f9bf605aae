"""What the installed Keras has of the private members that the package uses, and that no other file uses any."""

import ast
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.backend.keras_private import MEMBERS

ROOT = Path(kr.__file__).parent
NAMES = {member for _, member, _ in MEMBERS}


def _owners():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    owners = {
        "layer": model.layers[1],
        "batch normalization": keras.layers.BatchNormalization(),
        "optimizer": model.optimizer,
        "compiled model": model,
        "functional model": model,
    }
    if keras.backend.backend() == "tensorflow":
        from keras.src.backend.tensorflow.trainer import TFEpochIterator

        data = np.zeros((2, 2))
        owners["tensorflow epoch iterator"] = TFEpochIterator(x=data, distribute_strategy=model.distribute_strategy)
    if keras.backend.backend() == "jax":
        from keras.src.backend.jax.trainer import JAXEpochIterator

        owners["jax epoch iterator"] = JAXEpochIterator
    return owners


@pytest.mark.parametrize(("owner", "member", "use"), MEMBERS)
def test_the_installed_keras_has(owner, member, use):
    owners = _owners()
    on_jax_alone = member == "_symbolic_build" and keras.backend.backend() != "jax"
    on_tensorflow_alone = member == "_maybe_symbolic_build" and keras.backend.backend() != "tensorflow"
    on_torch_alone = member == "_should_torch_compile" and keras.backend.backend() != "torch"
    if owner not in owners or on_torch_alone or on_jax_alone or on_tensorflow_alone:
        pytest.skip("of another backend")
    assert hasattr(owners[owner], member), (
        f"Keras {keras.__version__} has no {member} in its {owner}, which is needed for {use}: see "
        "keras_robust/backend/keras_private.py."
    )


def _uses(tree):
    """Names of private members that are used: of other objects than self, or overridden."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in NAMES:
            yield node.attr
        elif isinstance(node, ast.FunctionDef) and node.name in NAMES:
            yield f"def {node.name}"


def test_no_other_file_uses_them():
    found = {
        str(path.relative_to(ROOT)): sorted(set(_uses(ast.parse(path.read_text()))))
        for path in sorted(ROOT.rglob("*.py"))
    }
    found = {path: uses for path, uses in found.items() if uses and path != "backend/keras_private.py"}
    # Overrides, and the calls of what they override.
    assert found == {
        "backend/jax/trainer.py": ["_symbolic_build", "def _symbolic_build"],
        "backend/tensorflow/trainer.py": [
            "_compute_loss",
            "_maybe_symbolic_build",
            "def _compute_loss",
            "def _get_metrics_result_or_logs",
            "def _maybe_symbolic_build",
        ],
        "backend/torch/trainer.py": ["_compute_loss", "def _compute_loss", "def _should_torch_compile"],
    }


def test_no_private_member_is_missing_from_the_table():
    """Names with an underscore, of other objects than self and cls, that nothing in the package defines."""
    trees = {path: ast.parse(path.read_text()) for path in ROOT.rglob("*.py")}
    defined = {
        name
        for tree in trees.values()
        for node in ast.walk(tree)
        for name in (
            [node.name]
            if isinstance(node, (ast.FunctionDef, ast.ClassDef))
            else [node.attr]
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            else [node.id]
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            else []
        )
    }
    foreign = {
        node.attr
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in defined | NAMES
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }
    assert foreign <= {"_replace", "_exit"}  # of named tuples and of `os`, documented
