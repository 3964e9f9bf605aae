"""Keras' own format: what training and evaluation here read. It needs Keras and this package's layers to load."""

import zipfile
from pathlib import Path
from typing import Any

import keras

from keras_robust.export import model_card
from keras_robust.export.metadata import ExportMetadata, attach
from keras_robust.export.runtimes import ZIP_FOLDER
from keras_robust.models import adapt
from keras_robust.weights import keras_archive


def write(model: keras.Model, path: Path, metadata: ExportMetadata, dtype: str = "float32") -> None:
    model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in model_card.documents(metadata).items():
            archive.writestr(ZIP_FOLDER + name, text)


def load(path: Path, pixels: Any = None) -> keras.Model:
    """The model of a .keras file; of a saved `AdversarialModel` the one that it trains.

    With `pixels` it is of other origin: see `keras_robust.adapt`.
    """
    model = keras_archive.load(path)
    inner = getattr(model, "model", None)
    model = inner if isinstance(inner, keras.Model) else model
    with zipfile.ZipFile(path) as archive:
        name = ZIP_FOLDER + model_card.METADATA
        metadata = archive.read(name).decode() if name in archive.namelist() else None
    if metadata is not None and pixels is not None:
        raise ValueError(f"pixels is for files of other origin, and this one tells; received {pixels!r}")
    attach(model, metadata)
    return model if pixels is None else adapt(model, pixels)
