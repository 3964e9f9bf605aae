"""Serve an exported SavedModel over HTTP, with LitServe, by the contract of TensorFlow Serving's REST interface.

    python tools/export.py robust.keras serving/flowers/1 --resolution 64
    python recipes/serve.py serving/flowers/1 --port 8501
    curl localhost:8501/v1/models/flowers:predict -d '{"signature_name": "jpeg", "instances": [{"b64": "..."}]}'

It needs `pip install tensorflow litserve`, neither Keras nor keras_robust, and runs where TensorFlow Serving's binary
or a container does not. Requests and answers are those of TensorFlow Serving (`tensorflow_model_server
--rest_api_port=8501 --model_name=flowers --model_base_path=$PWD/serving/flowers`), so that clients need not know which
of the two answers:

    signature_name    instances
    jpeg              {"b64": base64 of a JPEG or PNG file}, ...
    serving_default   images as nested lists of integers (height, width, 3), 0 to 255, all of one size

Each gives `{"predictions": [{"probabilities": ..., "classes": ..., "names": ..., "top5_names": ..., ...}, ...]}`, or
`{"error": ...}` with status 400. Requests that wait together run as one batch; one that is refused does not harm the
others. Bounds: bytes of a request (--max-bytes), images in it (--max-images), seconds that it waits (--timeout), and
those inside the SavedModel: a file's pixels are counted before it is decoded, and an image's sides are limited.

How fast it is, and what it says to malformed requests: python tools/load_test.py localhost:8501 flowers photo.jpg
"""

import argparse
import base64
import binascii
import json
from pathlib import Path

import litserve
import numpy as np
from fastapi.responses import JSONResponse

OUTPUTS = ("probabilities", "classes", "names", "top5_classes", "top5_names", "top5_probabilities")


class Refused(ValueError):
    """A request that has no answer; the message goes to the client."""


class Classifier(litserve.LitAPI):
    """Answers requests with an exported SavedModel."""

    def __init__(self, path, name, max_images, **options):
        super().__init__(api_path=f"/v1/models/{name}:predict", **options)
        self.path, self.max_images = str(path), max_images

    def setup(self, device):
        import tensorflow as tf

        self._tf, self._loaded = tf, tf.saved_model.load(self.path)

    def decode_request(self, request):
        """Images uint8 (n, height, width, 3); or why there are none, which must not stop the batch."""
        try:
            return self._images(request)
        except Refused as refusal:
            return refusal

    def batch(self, inputs):
        return inputs

    def predict(self, requests):
        """All images of one size run together."""
        answers = list(requests)
        for size in {images.shape[1:] for images in requests if not isinstance(images, Refused)}:
            chosen = [i for i, images in enumerate(requests) if getattr(images, "shape", (0,))[1:] == size]
            try:
                outputs = self._run("serving_default", np.concatenate([requests[i] for i in chosen]))
            except Refused as refusal:
                outputs = None
                for i in chosen:
                    answers[i] = refusal
            start = 0
            for i in chosen if outputs else ():
                stop = start + len(requests[i])
                answers[i] = {name: values[start:stop] for name, values in outputs.items()}
                start = stop
        return answers

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        if isinstance(output, Refused):
            return JSONResponse({"error": str(output)}, 400)
        rows = zip(*(_plain(output[name]) for name in OUTPUTS))
        return {"predictions": [dict(zip(OUTPUTS, row)) for row in rows]}

    def _images(self, request):
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

    def _run(self, signature, images):
        try:
            outputs = self._loaded.signatures[signature](images=self._tf.constant(images))
        except self._tf.errors.InvalidArgumentError as error:
            raise Refused(_reason(error)) from error
        return {name: value.numpy() for name, value in outputs.items()}


def _bytes(instance):
    try:
        return base64.b64decode(instance["b64"], validate=True)
    except (TypeError, KeyError, binascii.Error, ValueError) as error:
        raise Refused('instances of signature jpeg must be {"b64": base64 of a file}') from error


def _pixels(instances):
    try:
        images = np.array(instances)
    except ValueError as error:
        raise Refused("instances must be images of one size") from error
    if images.ndim != 4 or images.shape[-1] != 3 or not images.size:
        raise Refused(f"instances must be images (height, width, 3); received shape {images.shape[1:]}")
    if images.dtype.kind not in "iu" or images.min() < 0 or images.max() > 255:
        raise Refused("pixels must be integers from 0 to 255")
    return images.astype(np.uint8)


def _plain(values):
    return (np.char.decode(values.astype(bytes), "utf-8") if values.dtype == object else values).tolist()


def _reason(error):
    """The sentence of an error inside the graph, without the nodes around it."""
    text = " ".join(str(error.message).split())
    for before in ("assertion failed:", "<stack traces unavailable>"):
        text = text.split(before)[-1]
    return text.split("[[{{")[0].strip()[:300]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="folder of the SavedModel, .../NAME/VERSION or .../NAME")
    parser.add_argument(
        "--name", help="of the model in the address (default: the last part of the path that has letters)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument("--max-batch", type=int, default=32, help="requests that run together (default: 32)")
    parser.add_argument("--max-images", type=int, default=64, help="images in one request (default: 64)")
    parser.add_argument("--max-bytes", type=int, default=32_000_000, help="of one request (default: 32 MB)")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds that a request may wait (default: 30)")
    args = parser.parse_args(arguments)
    metadata = args.path / "assets" / "metadata.json"
    if not metadata.is_file():
        parser.error(f"path must be the folder of a SavedModel of tools/export.py; received {args.path}")
    names = [part for part in args.path.resolve().parts if any(letter.isalpha() for letter in part)]
    options = {"max_batch_size": args.max_batch, "batch_timeout": 0.005}
    api = Classifier(args.path.resolve(), args.name or names[-1], args.max_images, **options)
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        timeout=args.timeout,
        max_payload_size=args.max_bytes,
        model_metadata=json.loads(metadata.read_text(encoding="utf-8")),
    )
    server.run(host=args.host, port=args.port, num_api_servers=1, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
