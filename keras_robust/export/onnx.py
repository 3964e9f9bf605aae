"""ONNX, by way of tf2onnx: from float images to logits and all that `serving_default` gives but names of classes."""

import logging
from pathlib import Path

import keras
import tensorflow as tf

from keras_robust.export import model_card
from keras_robust.export.metadata import ExportMetadata
from keras_robust.export.outputs import answers
from keras_robust.types import Tensor

OPSET = 18


def write(model: keras.Model, path: Path, metadata: ExportMetadata, dtype: str = "float32") -> None:
    """Write the file `path`, with the texts of `model_card.documents` as its metadata."""
    try:
        import onnx
        import tf2onnx
    except ImportError as error:
        raise ImportError(f"ONNX needs {error.name}: pip install 'keras-robust[export]'") from error

    images = [tf.TensorSpec((None, None, None, 3), tf.float32, name="images")]

    @tf.function(input_signature=images)
    def outputs(images: Tensor) -> dict[str, Tensor]:
        logits = model(images, training=False)
        return {"logits": logits, **answers(logits)}

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    proto, _ = tf2onnx.convert.from_function(outputs, input_signature=images, opset=OPSET)
    proto.producer_name = "keras_robust"
    onnx.helper.set_model_props(proto, model_card.documents(metadata))
    onnx.checker.check_model(proto)
    onnx.save(proto, str(path))
