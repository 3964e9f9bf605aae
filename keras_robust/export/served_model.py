"""Served models: exported ones in the runtime of their format, as Keras layers that give logits and no gradients."""

import hashlib
from pathlib import Path

import keras
import numpy as np

from keras_robust import backend
from keras_robust.export.metadata import InputMetadata, attach
from keras_robust.export.runtimes import load_artefact
from keras_robust.types import Tensor


class ServedModel(keras.layers.Layer):
    """A model that `keras_robust.export` wrote, in the runtime of its format: logits without gradients."""

    differentiable = False
    class_names: tuple[str, ...]
    preprocessing: InputMetadata

    def __init__(self, path: Path) -> None:
        super().__init__(name=path.stem.replace(".", "_"))
        try:
            self._artefact = load_artefact(path)
        except ImportError as error:
            raise ValueError(f"its runtime is not installed: {error}") from error
        attach(self, self._artefact.documents()["metadata.json"])
        self._num_classes = len(self.class_names)
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        return backend.on_host(lambda images: np.asarray(self._artefact(images), np.float32), x, self._num_classes)
