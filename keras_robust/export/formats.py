"""The formats that a model can be exported to: one row each."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from keras_robust.checks import check_choice

OUTPUTS = (
    "`probabilities` float32 (batch, classes), `classes` int32 (batch,), `top5_classes` int32 and `top5_probabilities` "
    "float32 (batch, 5)"
)
UINT8 = "uint8 images (batch, height, width, 3)"
FLOAT = "float32 images (batch, height, width, 3), pixels in [0, 1]"


@dataclass(frozen=True)
class Format:
    """A format of exported models.

    Attributes:
        module: of this package, whose `write(model, path, metadata, dtype)` writes it.
        suffix: what a path must end in; empty for a folder.
        signatures: what can be called, and what it takes and gives: for the model card.
        tolerances: dtype -> largest difference of logits from the original's, as a part of the largest logit. The other
            formats sum in another order than TensorFlow; float16 rounds each weight to 11 bits.
        same_runtime: whether TensorFlow runs it, so that it must be as fast as the original.
        differentiable: whether gradients can be had from it, so that it can be attacked as the original can.
        needs_tensorflow: whether it is written from the TensorFlow backend alone.
    """

    module: str
    suffix: str
    signatures: Mapping[str, str]
    tolerances: Mapping[str, float] = field(default_factory=lambda: {"float32": 1e-4})
    same_runtime: bool = False
    differentiable: bool = False
    needs_tensorflow: bool = True

    def write(self, model, path, metadata, dtype):
        importlib.import_module(f"keras_robust.export.{self.module}").write(model, path, metadata, dtype)


FORMATS = {
    "tf_saved_model": Format(
        module="saved_model",
        suffix="",
        signatures={
            "serving_default": f"`images`, {UINT8}, to {OUTPUTS}, `names` and `top5_names` strings",
            "logits": f"`images`, {FLOAT}, to `logits` float32 (batch, classes); differentiable",
            "jpeg": "`images`, strings (batch,), JPEG or PNG files of any size, to the outputs of `serving_default`; "
            "the evaluation preprocessing is inside",
            "preprocess": "`images`, strings (batch,), as `jpeg` takes them, to the `images` of `serving_default`",
        },
        same_runtime=True,
        differentiable=True,
    ),
    "onnx": Format(
        module="onnx", suffix=".onnx", signatures={"main graph": f"`images`, {FLOAT}, to `logits`, {OUTPUTS}"}
    ),
    "litert": Format(
        module="litert",
        suffix=".tflite",
        signatures={
            "serving_default": f"`images`, {UINT8}, to {OUTPUTS}",
            "logits": f"`images`, {FLOAT}, to `logits` float32 (batch, classes)",
        },
        tolerances={"float32": 1e-4, "float16": 1e-2},
    ),
    "keras": Format(
        module="keras_file",
        suffix=".keras",
        signatures={"keras.models.load_model": f"{FLOAT}, to logits float32 (batch, classes); needs keras_robust"},
        differentiable=True,
        needs_tensorflow=False,
    ),
}


def check_format(name, dtype):
    """The row of a format that can be had in `dtype`."""
    row = FORMATS[check_choice("format", name, FORMATS)]
    if dtype not in row.tolerances:
        accepted = " or ".join(map(repr, row.tolerances))
        raise ValueError(f"dtype must be {accepted} for format {name!r}; received {dtype!r}.")
    return row
