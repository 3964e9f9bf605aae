"""Saving of a model into a file."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_robust.files import written_aside
from keras_robust.weights.loading import NAMINGS, architecture_name, normalization_of
from keras_robust.weights.reading import ARCHITECTURE_KEY, METADATA_KEY


def save(model: Any, path: Any, format: str = "timm") -> None:
    """Save a model's weights for PyTorch.

    `load` and PyTorch's `load_state_dict` get the same numbers back, bit by bit. The file is written aside and then
    renamed, so that an interruption leaves what was there. timm's models get their normalisation from the data: the
    model's is noted in the file's metadata, where `load` checks it.

    Args:
        model: from `keras_robust.models.create`.
        path: ends in .safetensors.
        format: "timm", names and layouts as in timm. Families that timm does not have get those of the code they were
            published with: isotropic ConvNeXt, RobArch, and the ConvStem.

    Raises:
        ValueError: an argument is not as described.

    Example:

    >>> vit = kr.models.create("vit_tiny", num_classes=10, input_size=32)
    >>> kr.weights.save(vit, "vit_tiny.safetensors")
    """
    path = Path(path)
    if format != "timm":
        raise ValueError(f'format must be "timm", received {format!r}')
    if path.suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, received {str(path)!r}")
    shapes = {variable.path: tuple(variable.shape) for variable in model.weights}
    naming = next((n for n in NAMINGS if n.suits(shapes) and all(map(n.name, shapes))), None)
    if naming is None:
        raise ValueError(f"model must be from keras_robust.models.create, received {model.name}")
    tensors = {
        naming.name(variable.path): naming.to_torch(variable.path, keras.ops.convert_to_numpy(variable))
        for variable in model.weights
    }
    # `ascontiguousarray` makes arrays of one axis out of numbers.
    tensors = {name: np.ascontiguousarray(each).reshape(each.shape) for name, each in naming.pack(tensors).items()}
    metadata = {"format": "pt", METADATA_KEY: json.dumps(normalization_of(model))}
    if (architecture := architecture_name(model)) is not None:
        metadata[ARCHITECTURE_KEY] = architecture

    from safetensors.numpy import save_file

    with written_aside(path) as aside:
        save_file(tensors, aside, metadata)
