"""Models by file format or name: what an evaluation can load, and whether it gives gradients."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_robust import backend, models, weights
from keras_robust.export import load as load_artefact


@dataclass(frozen=True)
class Format:
    """A way to store a model.

    Attributes:
        described: what a user may give, for messages.
        matches: whether a name or path is of this format.
        load: makes the model of it: a Keras model or layer, or any other callable, from float images (batch, height,
            width, 3) in [0, 1] to logits (batch, classes). A callable without gradients has an attribute
            `differentiable`, False, and one without weights an attribute `sha256`, of its file.
    """

    described: str
    matches: Callable[[str], bool]
    load: Callable[[str], Any]


class SavedModel(keras.layers.Layer):
    """A TensorFlow SavedModel from pixels to logits, by its signature "logits" or else by the one that it serves.

    Attributes:
        differentiable: whether its graph can be differentiated; rounding, say, or a served decoder cuts it off.

    Raises:
        ValueError: the backend is not TensorFlow, or the folder holds no such signature.
    """

    ENDPOINTS = ("logits", "serve", "serving_default")

    def __init__(self, path):
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                f"{path} is a SavedModel, which runs on the TensorFlow backend only; KERAS_BACKEND is "
                f"{keras.backend.backend()!r}."
            )
        super().__init__(name=Path(path).name.replace(".", "_") or "saved_model")
        errors = []
        for endpoint in self.ENDPOINTS:
            try:
                self._inner = keras.layers.TFSMLayer(str(path), call_endpoint=endpoint)
                break
            except (ValueError, OSError) as error:
                errors.append(str(error))
        else:
            raise ValueError(f"{path} cannot be used as a SavedModel: {errors[-1]}")
        self.endpoint = endpoint
        self.differentiable = backend.active.saved_function_is_differentiable(
            self._inner.call_endpoint_fn, self._logits
        )

    def call(self, x, training=False):
        return self._logits(self._inner(x))

    def _logits(self, outputs):
        if isinstance(outputs, dict):
            if len(outputs) > 1 and "logits" not in outputs:
                raise ValueError(f"the signature {self.endpoint!r} must have the output 'logits'; it has {[*outputs]}.")
            outputs = outputs.get("logits", next(iter(outputs.values())))
        return outputs


class Served(keras.layers.Layer):
    """A model that `keras_robust.export` wrote, in the runtime of its format: logits without gradients."""

    differentiable = False

    def __init__(self, path):
        super().__init__(name=Path(path).stem.replace(".", "_"))
        try:
            self._artefact = load_artefact(path)
        except ImportError as error:
            raise ValueError(f"its runtime is not installed: {error}") from error
        self._num_classes = json.loads(self._artefact.documents()["metadata.json"])["num_classes"]
        self.sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()

    def call(self, x, training=False):
        return backend.on_host(lambda images: np.asarray(self._artefact(images), np.float32), x, self._num_classes)


def _keras_file(path):
    model = keras.models.load_model(path, compile=False)
    # An `AdversarialModel` is saved with the model that it trains.
    inner = getattr(model, "model", None)
    return inner if isinstance(inner, keras.Model) else model


FORMATS = {
    "keras": Format("a .keras file", lambda path: Path(path).suffix == ".keras", _keras_file),
    "saved_model": Format(
        "the folder of a SavedModel", lambda path: (Path(path) / "saved_model.pb").is_file(), SavedModel
    ),
    "onnx": Format("a .onnx file", lambda path: Path(path).suffix == ".onnx", Served),
    "litert": Format("a .tflite file", lambda path: Path(path).suffix == ".tflite", Served),
}


def load_model(
    model: Any,
    path: str | PathLike | None = None,
    num_classes: int = 1000,
    input_size: int = 224,
    normalization: tuple | None = None,
) -> Any:
    """A model from what a user may name.

    Args:
        model: a model or other callable, which is returned; the path of a file in one of `FORMATS`; the name of a
            preset or of an architecture, with weights at `path`.
        path: weights for a preset or an architecture; see `keras_robust.weights.load`.
        num_classes, input_size, normalization: of an architecture; see `keras_robust.models.create`.

    Raises:
        ValueError: there is no such model, it cannot be read, or its weights are missing.

    Example:
        >>> model = load_model("robust.keras")
        >>> model = load_model("convnext_tiny_convstem_300ep", "convnext_tiny_cvst_robust.pt")
    """
    if not isinstance(model, (str, PathLike)):
        if not callable(model):
            raise ValueError(f"model must be a callable from images to logits, a path or a name; received {model!r}.")
        return model
    model = str(model)
    for each in FORMATS.values():
        if each.matches(model):
            if not Path(model).exists():
                raise ValueError(f"model: there is no file {model}")
            try:
                return each.load(model)
            except (ValueError, OSError, TypeError, KeyError) as error:
                raise ValueError(f"{model} cannot be read as {each.described}: {error}") from error
    if model in models.presets():
        return models.from_preset(model, path)
    if model in models.names():
        if path is None:
            raise ValueError(f"weights must be given for the architecture {model!r}: random ones tell nothing.")
        built = models.create(model, num_classes, input_size, normalization=normalization)
        weights.load(built, path)
        return built
    accepted = ", ".join(each.described for each in FORMATS.values())
    raise ValueError(
        f"model must be {accepted}, or the name of a preset or architecture (kr.models.presets(), kr.models.names()) "
        f"with weights; received {model!r}."
    )
