"""An exported model in a fresh process, in which neither this package nor Keras can be imported."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from keras_robust.export import runtimes

TIMEOUT = 600  # seconds for one answer


class FreshProcess:
    """Loads an artefact with its runtime alone; a context manager.

    Attributes:
        load_seconds: how long loading took, without starting Python and importing the runtime.
        documents: the texts inside the artefact.

    Raises:
        RuntimeError: the process ended; with the end of what it wrote.
    """

    def __init__(self, form: str, path: Path) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._errors = open(Path(self._folder.name) / "errors", "w+b")  # noqa: SIM115 (closed in __exit__)
        command = [sys.executable, runtimes.__file__, form, str(Path(path).resolve()), self._folder.name]
        environment = {**os.environ, "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        if form == "keras":  # this package's layers are in the file
            root = str(Path(runtimes.__file__).parents[2])
            environment |= {"PYTHONPATH": os.pathsep.join([root, *sys.path])}
            command.insert(1, "-P")  # not the folder of the script, whose modules are called onnx and the like
        else:
            command.insert(1, "-I")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment, text=True
        )
        self._requests, self._answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        hello = self._read()
        self.load_seconds, self.documents = hello["load_seconds"], hello["documents"]

    def logits(self, images: np.ndarray, batch_size: int = 100) -> np.ndarray:
        """Logits of float images (n, height, width, 3)."""
        parts = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
        return np.concatenate([self._outputs("logits", part)["logits"] for part in parts])

    def predict(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """All outputs of uint8 images (n, height, width, 3), by name."""
        return self._outputs("predict", images)

    def predict_files(self, files: Any) -> Any:
        """All outputs of encoded images, by name."""
        names = [f"{number}.image" for number in range(len(files))]
        for name, data in zip(names, files):
            (Path(self._folder.name) / name).write_bytes(data)
        return self._result(self._ask({"do": "files", "files": names, "out": "out.npz"}))

    def seconds(self, images: np.ndarray, repeats: int) -> list[float]:
        """Seconds for the logits of the images, for each of so many repeats."""
        return self._ask({"do": "time", "images": self._save(images), "repeats": repeats})["seconds"]

    def __enter__(self) -> "FreshProcess":
        return self

    def __exit__(self, *_: Any) -> None:
        self._requests.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        self._errors.close()
        self._folder.cleanup()

    def _outputs(self, what: str, images: np.ndarray) -> dict[str, np.ndarray]:
        return self._result(self._ask({"do": what, "images": self._save(images), "out": "out.npz"}))

    def _result(self, answer: dict[str, dict[Any, Any]]) -> dict[str, np.ndarray]:
        with np.load(Path(self._folder.name) / "out.npz", allow_pickle=False) as arrays:
            return {**arrays, **{name: np.array(value) for name, value in answer["strings"].items()}}

    def _save(self, images: np.ndarray) -> str:
        np.save(Path(self._folder.name) / "images.npy", images, allow_pickle=False)
        return "images.npy"

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
        except BrokenPipeError:
            pass  # what it died of is in the standard error
        return self._read()

    def _read(self) -> dict[str, Any]:
        timer = threading.Timer(TIMEOUT, self._process.kill)
        timer.start()
        line = self._answers.readline()
        timer.cancel()
        if line:
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        end = self._errors.read().decode(errors="replace").strip()[-2000:]
        self.__exit__()
        raise RuntimeError(f"the exported model failed in a fresh process: {end}")
