"""LiteRT (TensorFlow Lite): the signatures `serving_default` and `logits`, in float32 or with float16 weights.

The texts of `model_card.documents` are appended as a zip archive, as metadata of TensorFlow Lite files is: zip tools
read them, the runtime passes them over.
"""

import tempfile
import zipfile
from pathlib import Path

import keras
import tensorflow as tf

from keras_robust.backend.tensorflow import kernels
from keras_robust.export import model_card
from keras_robust.export.metadata import ExportMetadata
from keras_robust.export.outputs import answers
from keras_robust.export.runtimes import ZIP_FOLDER
from keras_robust.types import Tensor


def write(model: keras.Model, path: Path, metadata: ExportMetadata, dtype: str = "float32") -> None:
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32, name="images")])
    def logits(images: Tensor) -> dict[str, Tensor]:
        return {"logits": model(images, training=False)}

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")])
    def serve(images: Tensor) -> dict[str, Tensor]:
        return answers(model(tf.cast(images, tf.float32) / 255, training=False))

    with tempfile.TemporaryDirectory() as folder:
        with kernels.usual_forms():
            tf.saved_model.save(module, folder, signatures={"serving_default": serve, "logits": logits})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default", "logits"])
        if dtype == "float16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        path.write_bytes(converter.convert())
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in model_card.documents(metadata).items():
            archive.writestr(ZIP_FOLDER + name, text)
