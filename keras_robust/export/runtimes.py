"""Runtimes of exported models: each format as its users load it, without Keras or this package.

This file imports nothing of the package. `load_artefact(path)` gives an `Artefact`; run as a script it is the fresh
process in which `verification.py` loads what was exported: it refuses to import the package (and, but for a .keras
file, Keras) and answers requests, one line of JSON each. Arrays go through .npy files next to the request.
"""

import importlib
import json
import os
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np


def threads() -> Any:
    """Threads for the runtimes that read no environment of their own; 0: all cores."""
    return int(os.environ.get("OMP_NUM_THREADS") or 0)


class Artefact:
    """An exported model.

    Attributes:
        suffix: what its path ends in; empty for a folder.
        runtime: the package that runs it, which is all that it needs.
        differentiable: whether gradients can be had from it.
        input_size: height and width that it takes, None where they are open.
        channels_first: whether it takes (batch, channels, height, width), as files of other origin may: a call turns
            the images.
    """

    suffix: str
    runtime: str
    differentiable = False
    input_size: tuple[int, int] | None = None
    channels_first = False

    @classmethod
    def is_at(cls, path: Any) -> Any:
        """Whether there is an artefact of this format at `path`."""
        return path.is_file() and path.suffix == cls.suffix

    def __init__(self, path: Any) -> None:
        self.path = Path(path)

    def __call__(self, images: Any) -> Any:
        """Logits (batch, classes), or of pixels (batch, height, width, classes), of float images in [0, 1], numpy."""
        raise NotImplementedError

    def predict(self, images: Any) -> Any:
        """All outputs of uint8 images (batch, height, width, 3), as a dict of arrays."""
        raise NotImplementedError

    def _look_at_input(self, shape: Any) -> None:
        """Takes layout and size from the shape of the input, in which sizes left open are no positive integers."""
        if len(shape) != 4:
            raise ValueError(f"it must take one batch of images, of four axes; its input has the shape {list(shape)}")
        self.channels_first = shape[1] in (1, 3) and shape[3] not in (1, 3)
        height, width = shape[2:] if self.channels_first else shape[1:3]
        if all(isinstance(side, int) and side > 0 for side in (height, width)):
            self.input_size = (height, width)

    def _laid_out(self, images: Any) -> Any:
        return np.ascontiguousarray(np.moveaxis(images, 3, 1)) if self.channels_first else images

    def documents(self) -> Any:
        """The texts inside, by file name: metadata.json, class_names.txt, model_card.md; none in other people's."""
        if not zipfile.is_zipfile(self.path):
            return {}
        with zipfile.ZipFile(self.path) as archive:
            names = [name for name in archive.namelist() if name.startswith(ZIP_FOLDER)]
            return {name.removeprefix(ZIP_FOLDER): archive.read(name).decode() for name in names}


ZIP_FOLDER = "keras_robust/"


class SavedModelArtefact(Artefact):
    """A TensorFlow SavedModel."""

    suffix, runtime, differentiable = "", "tensorflow", True

    @classmethod
    def is_at(cls, path: Any) -> Any:
        return (path / "saved_model.pb").is_file()

    def __init__(self, path: Any) -> None:
        super().__init__(path)
        import tensorflow as tf

        self._loaded = tf.saved_model.load(str(path))
        self._signatures, self._tf = self._loaded.signatures, tf

    def __call__(self, images: Any) -> Any:
        return self._signatures["logits"](images=self._tf.constant(images))["logits"].numpy()

    def predict(self, images: Any) -> Any:
        return self._outputs("serving_default", self._tf.constant(images))

    def predict_files(self, files: Any) -> Any:
        """All outputs of encoded images, a list of bytes, and the `images` that they are preprocessed to."""
        encoded = self._tf.constant(files)
        return {**self._outputs("jpeg", encoded), **self._outputs("preprocess", encoded)}

    def _outputs(self, signature: Any, images: Any) -> Any:
        return {name: value.numpy() for name, value in self._signatures[signature](images=images).items()}

    def documents(self) -> Any:
        return {file.name: file.read_text(encoding="utf-8") for file in sorted((self.path / "assets").iterdir())}


class ONNXArtefact(Artefact):
    """An ONNX file, run by ONNX Runtime on the CPU."""

    suffix, runtime = ".onnx", "onnxruntime"

    def __init__(self, path: Any) -> None:
        super().__init__(path)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        (taken, *more), outputs = self._session.get_inputs(), self._session.get_outputs()
        if more or taken.type != "tensor(float)":
            raise ValueError(f"it must take one batch of float images; it takes {len(more) + 1} inputs, {taken.type}")
        self._look_at_input(taken.shape)
        self._input = taken.name
        self._output = _the_logits([output.name for output in outputs])

    def __call__(self, images: Any) -> Any:
        return self._session.run([self._output], {self._input: self._laid_out(images)})[0]

    def predict(self, images: Any) -> Any:
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, {"images": images.astype(np.float32) / 255})))

    def documents(self) -> Any:
        return dict(self._session.get_modelmeta().custom_metadata_map)


class LiteRTArtefact(Artefact):
    """A LiteRT (TensorFlow Lite) file."""

    suffix, runtime = ".tflite", "ai_edge_litert.interpreter"

    def __init__(self, path: Any) -> None:
        super().__init__(path)
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(path), num_threads=threads() or os.cpu_count())
        signatures = self._interpreter.get_signature_list()
        if "logits" in signatures:
            self._logits = self._interpreter.get_signature_runner("logits")
            self._input, self._output = "images", "logits"
        elif len(signatures) == 1:
            ((name, sides),) = signatures.items()
            self._logits = self._interpreter.get_signature_runner(name)
            if len(sides["inputs"]) != 1:
                raise ValueError(f"it must take one batch of images; it takes {sides['inputs']}")
            self._input, self._output = sides["inputs"][0], _the_logits(sides["outputs"])
        else:
            raise ValueError(f"it must have the signature 'logits', or one alone; it has {list(signatures)}")
        taken = self._logits.get_input_details()[self._input]
        if taken["dtype"] is not np.float32:
            raise ValueError(f"it must take float32 images; it takes {np.dtype(taken['dtype'])}")
        self._look_at_input([int(side) for side in taken.get("shape_signature", taken["shape"])])

    def __call__(self, images: Any) -> Any:
        return self._logits(**{self._input: self._laid_out(images)})[self._output]

    def predict(self, images: Any) -> Any:
        return self._interpreter.get_signature_runner("serving_default")(images=images)


class KerasArtefact(Artefact):
    """A .keras file, which needs Keras and this package's layers."""

    suffix, runtime, differentiable = ".keras", "keras_robust", True

    def __init__(self, path: Any) -> None:
        super().__init__(path)
        import keras

        import keras_robust  # noqa: F401  (its layers)

        self._keras = keras
        self._model = keras.models.load_model(path, compile=False)

    def __call__(self, images: Any) -> Any:
        return self._keras.ops.convert_to_numpy(self._model.predict_on_batch(images))

    def predict(self, images: Any) -> Any:
        logits = self(images.astype(np.float32) / 255)
        return {"probabilities": self._keras.ops.convert_to_numpy(self._keras.ops.softmax(logits))}


def _the_logits(outputs: Any) -> Any:
    """The output that is called so, or the only one."""
    if "logits" not in outputs and len(outputs) != 1:
        raise ValueError(f"it must have the output 'logits', or one alone; it has {list(outputs)}")
    return "logits" if "logits" in outputs else outputs[0]


ARTEFACTS = {
    "tf_saved_model": SavedModelArtefact,
    "onnx": ONNXArtefact,
    "litert": LiteRTArtefact,
    "keras": KerasArtefact,
}


def load_artefact(path: Any) -> Any:
    """The `Artefact` at a path, by what lies there.

    Raises:
        ValueError: it is none of the formats.
    """
    path = Path(path)
    for kind in ARTEFACTS.values():
        if kind.is_at(path):
            return kind(path)
    suffixes = ", ".join(kind.suffix for kind in ARTEFACTS.values() if kind.suffix)
    raise ValueError(f"path must be the folder of a SavedModel or a file ending in {suffixes}; received {str(path)!r}.")


class _Without:
    """A finder of modules that does not find some packages, as if they were not installed."""

    def __init__(self, finder: Any, packages: Any) -> None:
        self._finder, self._packages = finder, packages

    def find_spec(self, name: str, *where: Any) -> Any:
        return None if name.split(".")[0] in self._packages else self._finder.find_spec(name, *where)


def _answer(artefact: Any, request: Any, folder: Any) -> Any:
    if request["do"] == "files":
        outputs = artefact.predict_files([(folder / name).read_bytes() for name in request["files"]])
    else:
        images = np.load(folder / request["images"], allow_pickle=False)
        if request["do"] == "time":
            return {"seconds": [_seconds(artefact, images) for _ in range(request["repeats"])]}
        outputs = {"logits": artefact(images)} if request["do"] == "logits" else artefact.predict(images)
    arrays = {name: value for name, value in outputs.items() if value.dtype != object}
    np.savez(folder / request["out"], **arrays)
    texts = {
        name: np.char.decode(value.astype(bytes), "utf-8") for name, value in outputs.items() if name not in arrays
    }
    return {"strings": {name: value.tolist() for name, value in texts.items()}}


def _seconds(artefact: Any, images: Any) -> Any:
    start = time.perf_counter()
    artefact(images)
    return time.perf_counter() - start


def main(form: Any, path: Any, folder: Any) -> None:
    # Answers go to what was the standard output; libraries that print there print to the standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if form != "keras":
        sys.meta_path[:] = [_Without(finder, {"keras", "keras_robust"}) for finder in sys.meta_path]
    importlib.import_module(ARTEFACTS[form].runtime)
    start = time.perf_counter()
    artefact = ARTEFACTS[form](path)
    hello = {"load_seconds": time.perf_counter() - start, "documents": artefact.documents()}
    print(json.dumps(hello), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(artefact, json.loads(line), Path(folder))), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
