"""Served models: files in the runtime of their format, as Keras layers that give logits and no gradients."""

import hashlib
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_robust import backend
from keras_robust.export.metadata import InputMetadata
from keras_robust.export.origin import gives_probabilities, logarithms, normalized, range_of
from keras_robust.export.runtimes import load_artefact
from keras_robust.types import Tensor

PROBE = 64  # height and width of random images for nets of any size


class ServedModel(keras.layers.Layer):
    """An .onnx or .tflite file in its runtime: logits without gradients.

    Files of other origin take images in either layout; where they return probabilities, their logarithms are taken.

    Args:
        path: of the file.
        pixels: what one of other origin takes; None for exports of this package, which tell it.

    Raises:
        ValueError: the file is damaged or classifies neither images nor pixels, its runtime is not installed, or
            nothing tells what pixels it takes.
    """

    differentiable = False
    class_names: tuple[str, ...]
    preprocessing: InputMetadata

    def __init__(self, path: Path, pixels: Any = None) -> None:
        super().__init__(name=path.stem.replace(".", "_"))
        try:
            self._artefact = load_artefact(path)
        except ImportError as error:
            raise ValueError(f"its runtime is not installed: {error}") from error
        except Exception as error:  # runtimes raise exceptions of their own
            raise ValueError(str(error)) from error
        self._taken = range_of(self, self._artefact.documents().get("metadata.json"), pixels)
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        sides = self._artefact.input_size or (PROBE, PROBE)
        probes = np.random.default_rng(0).random((2, *sides, 3), dtype="float32")
        try:
            outputs = np.asarray(self._artefact(probes))
        except Exception as error:
            raise ValueError(f"it does not run on images of shape {probes.shape}: {error}") from error
        self._probabilities = gives_probabilities(outputs)
        self._num_classes, self._dense = outputs.shape[-1], outputs.ndim == 4
        if getattr(self, "class_names", None) is not None and len(self.class_names) != self._num_classes:
            raise ValueError(f"it returns {self._num_classes} scores and names {len(self.class_names)} classes")

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        sides = tuple(x.shape[1:3]) if self._dense else ()
        return backend.on_host(self._answer, normalized(x, self._taken), (*sides, self._num_classes))

    def _answer(self, images: np.ndarray) -> np.ndarray:
        outputs = np.asarray(self._artefact(images), np.float32)
        return logarithms(outputs) if self._probabilities else outputs
