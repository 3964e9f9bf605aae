"""Classifiers, by name."""

from keras_robust.models.adapt import adapt, adapted, is_foreign
from keras_robust.models.cost import multiply_adds, parameters
from keras_robust.models.features import features
from keras_robust.models.mixture import mixed_nuts
from keras_robust.models.outputs import class_names, set_class_names
from keras_robust.models.preset_folder import is_preset_folder, save_preset, upload_preset
from keras_robust.models.presets import Preprocessing
from keras_robust.models.pretrained import from_preset, mirrored, preset, preset_file, preset_names, presets
from keras_robust.models.registry import architecture, architecture_of, create, names, register
from keras_robust.models.table import ModelTable, published, table

__all__ = [
    "ModelTable",
    "Preprocessing",
    "adapt",
    "adapted",
    "architecture",
    "architecture_of",
    "class_names",
    "create",
    "features",
    "is_foreign",
    "is_preset_folder",
    "from_preset",
    "mirrored",
    "mixed_nuts",
    "multiply_adds",
    "names",
    "parameters",
    "preset",
    "preset_file",
    "preset_names",
    "presets",
    "published",
    "register",
    "save_preset",
    "set_class_names",
    "table",
    "upload_preset",
]
