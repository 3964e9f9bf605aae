"""SavedModels as Keras layers: differentiable where their graph is, so that they can be attacked as they are served."""

from pathlib import Path
from typing import Any

import keras

from keras_robust import backend
from keras_robust.export.origin import normalized, range_of
from keras_robust.types import Tensor


class SavedModelLayer(keras.layers.Layer):
    """A SavedModel from pixels to logits, by its signature "logits" or else by the one that it serves.

    Attributes:
        differentiable: whether its graph can be differentiated; rounding, say, or a served decoder cuts it off.

    Raises:
        ValueError: the backend is not TensorFlow, or the folder holds no such signature.
    """

    ENDPOINTS = ("logits", "serve", "serving_default")

    def __init__(self, path: Path, pixels: Any = None) -> None:
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                f"{path} is a SavedModel, which runs on the TensorFlow backend only; KERAS_BACKEND is "
                f"{keras.backend.backend()!r}."
            )
        super().__init__(name=path.name.replace(".", "_") or "saved_model")
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
        metadata = path / "assets" / "metadata.json"
        self._taken = range_of(self, metadata.read_text(encoding="utf-8") if metadata.is_file() else None, pixels)
        self.differentiable = backend.active.saved_function_is_differentiable(
            self._inner.call_endpoint_fn, self._logits
        )

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        return self._logits(self._inner(normalized(x, self._taken)))

    def _logits(self, outputs: Any) -> Tensor:
        if isinstance(outputs, dict):
            if len(outputs) > 1 and "logits" not in outputs:
                raise ValueError(f"the signature {self.endpoint!r} must have the output 'logits'; it has {[*outputs]}.")
            outputs = outputs.get("logits", next(iter(outputs.values())))
        return outputs
