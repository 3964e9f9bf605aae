"""Formats of exported models, one row each: how they are written, run, recognised and evaluated."""

import importlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import keras

from keras_robust.checks import check_choice
from keras_robust.export.metadata import ExportMetadata
from keras_robust.export.runtimes import Artefact, KerasArtefact, LiteRTArtefact, ONNXArtefact, SavedModelArtefact
from keras_robust.export.tasks import TASKS

OTHER_FILE = re.compile(r"\.[A-Za-z]{1,6}\d?")  # "model.txt", "net.h5"; a folder may be called "1.2" or "net.2024"
UINT8 = "uint8 images (batch, height, width, 3)"
FLOAT = "float32 images (batch, height, width, 3), pixels in [0, 1]"


@dataclass(frozen=True)
class Format:
    """A format of exported models: one row of `FORMATS`.

    Attributes:
        described: what a user may give, for messages.
        writer: module of this package whose `write(model, path, metadata, dtype)` writes it.
        loader: class or function of this package, as "module:name", that makes a model to evaluate of a path.
        artefact: what runs it without Keras or this package; its suffix and runtime.
        signatures: what can be called, and what it takes and gives, with places for what depends on the task.
        tolerances: dtype -> largest difference of logits from the original's, as a part of the largest logit. The other
            formats sum in another order than TensorFlow; float16 rounds each weight to 11 bits.
        same_runtime: whether TensorFlow runs it, so that it must be as fast as the original.
        needs_tensorflow: whether it is written from the TensorFlow backend alone.
    """

    described: str
    writer: str
    loader: str
    artefact: type[Artefact]
    signatures: Mapping[str, str]
    tolerances: Mapping[str, float] = field(default_factory=lambda: {"float32": 1e-4})
    same_runtime: bool = False
    needs_tensorflow: bool = True

    @property
    def suffix(self) -> str:
        """What a path must end in; empty for a folder."""
        return self.artefact.suffix

    @property
    def differentiable(self) -> bool:
        """Whether gradients can be had from it, so that it can be attacked as the original can."""
        return self.artefact.differentiable

    def described_signatures(self, task: str) -> dict[str, str]:
        """The signatures of models of a task of `TASKS`, for the model card."""
        places = asdict(TASKS[task])
        return {name: text.format(**places) for name, text in self.signatures.items()}

    def write(self, model: keras.Model, path: Path, metadata: ExportMetadata, dtype: str) -> None:
        importlib.import_module(f"keras_robust.export.{self.writer}").write(model, path, metadata, dtype)

    def load(self, path: Path, pixels: Any = None) -> Any:
        """A model to evaluate, from float images in [0, 1] to logits; see `loading.load_model`."""
        module, _, name = self.loader.partition(":")
        return getattr(importlib.import_module(f"keras_robust.export.{module}"), name)(path, pixels)


FORMATS = {
    "tf_saved_model": Format(
        described="the folder of a SavedModel",
        writer="saved_model",
        loader="saved_model_layer:SavedModelLayer",
        artefact=SavedModelArtefact,
        signatures={
            "serving_default": f"`images`, {UINT8}, to {{outputs}}{{names}}",
            "logits": f"`images`, {FLOAT}, to `logits` float32 {{logits}}; differentiable",
            "jpeg": "`images`, strings (batch,), JPEG or PNG files of any size, to the outputs of `serving_default`; "
            "the evaluation preprocessing is inside",
            "preprocess": "`images`, strings (batch,), as `jpeg` takes them, to the `images` of `serving_default`",
        },
        same_runtime=True,
    ),
    "onnx": Format(
        described="a .onnx file",
        writer="onnx",
        loader="served_model:ServedModel",
        artefact=ONNXArtefact,
        signatures={"main graph": f"`images`, {FLOAT}, to `logits`, {{outputs}}"},
    ),
    "litert": Format(
        described="a .tflite file",
        writer="litert",
        loader="served_model:ServedModel",
        artefact=LiteRTArtefact,
        signatures={
            "serving_default": f"`images`, {UINT8}, to {{outputs}}",
            "logits": f"`images`, {FLOAT}, to `logits` float32 {{logits}}",
        },
        tolerances={"float32": 1e-4, "float16": 1e-2},
    ),
    "keras": Format(
        described="a .keras file",
        writer="keras_file",
        loader="keras_file:load",
        artefact=KerasArtefact,
        signatures={"keras.models.load_model": f"{FLOAT}, to logits float32 {{logits}}; needs keras_robust"},
        needs_tensorflow=False,
    ),
}


def check_format(name: str, dtype: str) -> Format:
    """The row of a format that can be had in `dtype`."""
    row = FORMATS[check_choice("format", name, FORMATS)]
    check_choice(f"dtype of format {name!r}", dtype, row.tolerances)
    return row


def format_of(path: str | PathLike) -> str:
    """The format that a path to write to stands for, by its suffix: a folder is a SavedModel.

    Raises:
        ValueError: the path ends as files of another kind do.

    Example:
        >>> format_of("flowers.onnx"), format_of("serving/flowers/1")
        ('onnx', 'tf_saved_model')
    """
    suffix = Path(path).suffix
    found = next((name for name, row in FORMATS.items() if row.suffix and row.suffix == suffix), None)
    if found is None and OTHER_FILE.fullmatch(suffix):
        ours = ", ".join(row.suffix for row in FORMATS.values() if row.suffix)
        raise ValueError(f"out must be a folder, or end in {ours}; received {str(path)!r}.")
    return found or "tf_saved_model"
