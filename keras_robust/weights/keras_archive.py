"""`.keras` files: their sizes are bounded before anything of them is unpacked or built."""

import json
import zipfile
from os import PathLike
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from keras_robust.files import DAMAGE, check_unpacked_sizes

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MAX_CONFIG_BYTES = 64 * 2**20
MAX_DATASETS = 100_000
# Variables that a file need not hold: states of random layers, and of metrics.
FREE_VALUES = 2**20


def load(path: str | PathLike) -> keras.Model:
    """The model in a `.keras` file, in Keras' safe mode, not compiled.

    Raises:
        ValueError: the file is damaged, holds another thing or code, unpacks to more than a file of its size may, or
            describes a model with many more weights than it holds.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            check_unpacked_sizes(archive)
            if archive.getinfo(CONFIG).file_size > MAX_CONFIG_BYTES:
                raise ValueError(f"its {CONFIG} has more than {MAX_CONFIG_BYTES:,} bytes")
            config = json.loads(archive.read(CONFIG))
            with archive.open(WEIGHTS) as file, h5py.File(file) as stored:
                held = values_in(stored)
        asked = _values_of(config)
        if asked > held + FREE_VALUES:
            raise ValueError(f"it describes a model of {asked:,} weights and holds {held:,}")
        model = keras.models.load_model(path, compile=False)
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{path} is not a readable Keras model: {reason}") from error
    if not isinstance(model, keras.Model):
        raise ValueError(f"{path} is not a readable Keras model: it holds a {type(model).__name__}")
    return model


def values_in(stored: h5py.File) -> int:
    """How many values the datasets of an HDF5 file have; those stored in other files are refused.

    Raises:
        ValueError: a dataset that lies outside of the file, or more datasets than models have.
    """
    count = datasets = 0

    def visit(name: str, item: Any) -> None:
        nonlocal count, datasets
        if not isinstance(item, h5py.Dataset):
            return
        datasets += 1
        if datasets > MAX_DATASETS or item.external or item.is_virtual:
            raise ValueError(f"{name} lies outside of the file, or is one of more than {MAX_DATASETS:,} arrays")
        # What is not stored is filled in: it takes no room in the file, but does in memory.
        if item.size and item.id.get_storage_size() == 0:
            raise ValueError(f"{name} claims {item.size:,} values and stores none")
        count += item.size

    stored.visititems(visit)
    return count


def _values_of(config: Any) -> int:
    """How many values the weights of a model have that a configuration describes; none is allocated."""
    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object(_uncompiled(config), safe_mode=True)
        weights = model.weights if isinstance(model, keras.Layer) else []
        return sum(int(np.prod(weight.shape, dtype=object)) for weight in weights)


def _uncompiled(config: Any) -> Any:
    """The configuration without optimizers, of models in models, too: they make variables, which that scope refuses."""
    if isinstance(config, dict):
        return {key: _uncompiled(value) for key, value in config.items() if key != "compile_config"}
    return [_uncompiled(value) for value in config] if isinstance(config, list) else config
