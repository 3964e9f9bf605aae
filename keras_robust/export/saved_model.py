"""TensorFlow SavedModel: three signatures, and what is known about the model as assets."""

import tempfile
from pathlib import Path

import keras
import tensorflow as tf

from keras_robust.export import graph_preprocessing, model_card
from keras_robust.export.metadata import ExportMetadata, InputMetadata
from keras_robust.export.outputs import answers
from keras_robust.export.tasks import SEGMENTATION
from keras_robust.types import Tensor


def write(model: keras.Model, path: Path, metadata: ExportMetadata, dtype: str = "float32") -> None:
    """Write the SavedModel folder `path`; signatures as in `keras_robust.export.export`."""
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    functions = signatures(model, metadata)
    with tempfile.TemporaryDirectory() as folder:
        module.documents = [tf.saved_model.Asset(str(file)) for file in model_card.write_documents(folder, metadata)]
        tf.saved_model.save(module, str(path), signatures=functions)
    (path / model_card.MODEL_CARD).write_text(model_card.model_card(metadata), encoding="utf-8")


def signatures(model: keras.Model, metadata: ExportMetadata) -> dict[str, tf.types.experimental.GenericFunction]:
    """The functions by the names of their signatures, not yet traced."""
    sizes, names = metadata.input, tf.constant(metadata.class_names)

    def checked(images: Tensor) -> Tensor:
        with tf.control_dependencies(_checks(images, sizes)):
            return tf.identity(images)

    def outputs(pixels: Tensor) -> dict[str, Tensor]:
        result = answers(model(pixels, training=False))
        if metadata.task == SEGMENTATION:  # no string for each pixel
            return result
        return {
            **result,
            "names": tf.gather(names, result["classes"]),
            "top5_names": tf.gather(names, result["top5_classes"]),
        }

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32, name="images")])
    def logits(images: Tensor) -> dict[str, Tensor]:
        return {"logits": model(checked(images), training=False)}

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")])
    def serve(images: Tensor) -> dict[str, Tensor]:
        return outputs(tf.cast(checked(images), tf.float32) / 255)

    files = tf.TensorSpec((None,), tf.string, name="images")

    @tf.function(input_signature=[files])
    def preprocess(images: Tensor) -> dict[str, Tensor]:
        preprocessing = sizes.resolution, sizes.crop_pct, sizes.interpolation
        return {"images": checked(graph_preprocessing.decode_and_preprocess(images, *preprocessing))}

    @tf.function(input_signature=[files])
    def encoded(images: Tensor) -> dict[str, Tensor]:
        return serve(preprocess(images)["images"])

    return {"serving_default": serve, "logits": logits, "jpeg": encoded, "preprocess": preprocess}


def _checks(images: Tensor, sizes: InputMetadata) -> list[Tensor]:
    """What the graph asserts first: a model has no answer to other sizes, and a request must not take all memory."""
    batch, height, width = tf.unstack(tf.shape(images)[:3])
    sides = tf.stack([height, width])
    least, step, most = sizes.min_size, sizes.multiple_of, sizes.max_size
    rule = f"images must have a height and a width of {least} to {most} pixels"
    rule += f", multiples of {step}; received" if step > 1 else "; received"
    allowed = (tf.reduce_min(sides) >= least) & (tf.reduce_max(sides) <= most) & tf.reduce_all(sides % step == 0)
    return [
        tf.debugging.Assert(batch > 0, ["images must not be an empty batch"], name="batch"),
        tf.debugging.Assert(allowed, [rule, sides], name="sides"),
    ]
