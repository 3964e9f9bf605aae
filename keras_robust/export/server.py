"""Server of an exported SavedModel, on LitServe, by the contract of TensorFlow Serving's REST interface."""

import base64
import binascii
import json
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from fastapi import Request, Response
from fastapi.responses import JSONResponse

OUTPUTS = ("probabilities", "classes", "names", "top5_classes", "top5_names", "top5_probabilities")


class Refused(ValueError):
    """A request that has no answer; the message goes to the client."""


class Classifier(litserve.LitAPI):
    """Answers requests with an exported SavedModel."""

    def __init__(self, path: Path, name: str, max_images: int, **options: Any) -> None:
        super().__init__(api_path=f"/v1/models/{name}:predict", **options)
        self.path, self.max_images = str(path), max_images

    def setup(self, device: str) -> None:
        import tensorflow as tf

        self._tf, self._loaded = tf, tf.saved_model.load(self.path)

    # LitServe reads from these two annotations what travels over HTTP: any JSON in, any response out.
    def decode_request(self, request: Request) -> np.ndarray | Refused:
        """Images uint8 (n, height, width, 3); or why there are none, which must not stop the batch."""
        try:
            return self._images(request)
        except Refused as refusal:
            return refusal

    def batch(self, inputs: list) -> list:
        return inputs

    def predict(self, requests: list) -> list:
        """All images of one size run together."""
        answers = list(requests)
        for size in {images.shape[1:] for images in requests if not isinstance(images, Refused)}:
            chosen = [i for i, images in enumerate(requests) if getattr(images, "shape", (0,))[1:] == size]
            try:
                outputs = self._run("serving_default", np.concatenate([requests[i] for i in chosen]))
            except Refused as refusal:
                outputs = {}
                for i in chosen:
                    answers[i] = refusal
            start = 0
            for i in chosen if outputs else ():
                stop = start + len(requests[i])
                answers[i] = {name: values[start:stop] for name, values in outputs.items()}
                start = stop
        return answers

    def unbatch(self, output: list) -> list:
        return output

    def encode_response(self, output: Any) -> Response:
        if isinstance(output, Refused):
            return JSONResponse({"error": str(output)}, 400)
        rows = zip(*(_plain(output[name]) for name in OUTPUTS))
        return JSONResponse({"predictions": [dict(zip(OUTPUTS, row)) for row in rows]})

    def _images(self, request: Any) -> np.ndarray:
        if not isinstance(request, dict) or not isinstance(request.get("instances"), list):
            raise Refused('the body must be JSON: {"signature_name": ..., "instances": [...]}')
        instances, signature = request["instances"], request.get("signature_name", "serving_default")
        if not 1 <= len(instances) <= self.max_images:
            raise Refused(f"instances must be 1 to {self.max_images}; received {len(instances)}")
        if signature == "jpeg":
            return self._run("preprocess", [_bytes(instance) for instance in instances])["images"]
        if signature == "serving_default":
            return _pixels(instances)
        raise Refused(f"signature_name must be jpeg or serving_default; received {signature!r:.100}")

    def _run(self, signature: str, images: Any) -> dict[str, np.ndarray]:
        try:
            outputs = self._loaded.signatures[signature](images=self._tf.constant(images))
        except self._tf.errors.InvalidArgumentError as error:
            raise Refused(_reason(error)) from error
        return {name: value.numpy() for name, value in outputs.items()}


def _bytes(instance: Any) -> bytes:
    try:
        return base64.b64decode(instance["b64"], validate=True)
    except (TypeError, KeyError, binascii.Error, ValueError) as error:
        raise Refused('instances of signature jpeg must be {"b64": base64 of a file}') from error


def _pixels(instances: list) -> np.ndarray:
    try:
        images = np.array(instances)
    except ValueError as error:
        raise Refused("instances must be images of one size") from error
    if images.ndim != 4 or images.shape[-1] != 3 or not images.size:
        raise Refused(f"instances must be images (height, width, 3); received shape {images.shape[1:]}")
    if images.dtype.kind not in "iu" or images.min() < 0 or images.max() > 255:
        raise Refused("pixels must be integers from 0 to 255")
    return images.astype(np.uint8)


def _plain(values: np.ndarray) -> list:
    return (np.char.decode(values.astype(bytes), "utf-8") if values.dtype == object else values).tolist()


def _reason(error: Any) -> str:
    """The sentence of an error inside the graph, without the nodes around it."""
    text = " ".join(str(error.message).split())
    for before in ("assertion failed:", "<stack traces unavailable>"):
        text = text.split(before)[-1]
    return text.split("[[{{")[0].strip()[:300]


def server(
    path: Path, name: str, max_batch: int, max_images: int, max_bytes: int, timeout: float
) -> litserve.LitServer:
    """The server of one model; see `keras-robust serve --help` for the arguments."""
    metadata = json.loads((path / "assets" / "metadata.json").read_text(encoding="utf-8"))
    api = Classifier(path.resolve(), name, max_images, max_batch_size=max_batch, batch_timeout=0.005)
    return litserve.LitServer(
        api, accelerator="cpu", timeout=timeout, max_payload_size=max_bytes, model_metadata=metadata
    )
