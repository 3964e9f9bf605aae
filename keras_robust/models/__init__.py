"""Classifiers, by name."""

from keras_robust.models.adapt import adapt, adapted, is_foreign
from keras_robust.models.cost import multiply_adds, parameters
from keras_robust.models.features import features
from keras_robust.models.outputs import class_names, set_class_names
from keras_robust.models.pretrained import from_preset, preset, presets
from keras_robust.models.registry import architecture, architecture_of, create, names, register
from keras_robust.models.table import ModelTable, table

__all__ = [
    "ModelTable",
    "adapt",
    "adapted",
    "architecture",
    "architecture_of",
    "class_names",
    "create",
    "features",
    "is_foreign",
    "from_preset",
    "multiply_adds",
    "names",
    "parameters",
    "preset",
    "presets",
    "register",
    "set_class_names",
    "table",
]
