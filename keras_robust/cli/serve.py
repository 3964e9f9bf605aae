"""Server from the command line: `keras-robust serve`."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from keras_robust.cli.command import CommandParser, run

DESCRIPTION = """\
Serve an exported SavedModel over HTTP, by the contract of TensorFlow Serving's REST interface.

    keras-robust export robust.keras serving/flowers/1 --resolution 64
    keras-robust serve serving/flowers/1 --port 8501
    curl localhost:8501/v1/models/flowers:predict -d '{"signature_name": "jpeg", "instances": [{"b64": "..."}]}'

It needs `pip install 'keras-robust[serve]'` and runs where TensorFlow Serving's binary
or a container does not. Requests and answers are those of TensorFlow Serving (`tensorflow_model_server
--rest_api_port=8501 --model_name=flowers --model_base_path=$PWD/serving/flowers`), so that clients need not know which
of the two answers:

    signature_name    instances
    jpeg              {"b64": base64 of a JPEG or PNG file}, ...
    serving_default   images as nested lists of integers (height, width, 3), 0 to 255, all of one size

Each gives `{"predictions": [{"probabilities": ..., "classes": ..., "names": ..., "top5_names": ..., ...}, ...]}`, or
`{"error": ...}` with status 400. `{"inputs": ...}` is answered column by column, `{"outputs": {...}}`. Requests that
wait while a batch runs are the next batch; one that is refused does not harm the others. Bounds: bytes of a request
(--max-bytes), images in it (--max-images), seconds that it may take (--timeout), requests under way (--max-waiting),
and those inside the SavedModel: a file's pixels are counted before it is decoded, and an image's sides are limited.

`GET /v1/models/NAME` tells whether it is ready, `GET /health` answers "ok"; `/versions/N` may follow the name. SIGTERM
and Ctrl-C finish what is under way, within the timeout; it is one process, so that nothing is left behind. It has no
passwords and no TLS, and listens to this machine alone: to the world it belongs behind a reverse proxy that has both.

How fast it is, and what it says to malformed requests: keras-robust load-test localhost:8501 flowers photo.jpg"""


KEEP_ALIVE = 75  # seconds that a connection may rest between two requests, as of nginx


def serve(options: argparse.Namespace) -> None:
    if not (options.path / "assets" / "metadata.json").is_file():
        raise ValueError(
            f"path must be the folder of a SavedModel of keras-robust export; received {str(options.path)!r}."
        )
    try:
        import uvicorn

        from keras_robust.export.server import Limits, application
    except ImportError as error:
        raise ImportError(f"serving needs {error.name}: pip install 'keras-robust[serve]'") from error
    names = [part for part in options.path.resolve().parts if any(letter.isalpha() for letter in part)]
    limits = Limits(options.max_batch, options.max_images, options.max_bytes, options.timeout, options.max_waiting)
    name = options.name or names[-1]
    address = f"http://{options.host}:{options.port}/v1/models/{name}"
    print(f"loading {options.path}; then it answers at {address}:predict", flush=True)
    uvicorn.run(
        application(options.path, name, limits, options.info),
        host=options.host,
        port=options.port,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(options.timeout),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser("serve", DESCRIPTION)
    parser.add_argument("path", type=Path, help="folder of the SavedModel, .../NAME/VERSION or .../NAME")
    parser.add_argument(
        "--name", help="of the model in the address (default: the last part of the path that has letters)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument("--max-batch", type=int, default=32, help="images that run together (default: 32)")
    parser.add_argument("--max-images", type=int, default=64, help="images in one request (default: 64)")
    parser.add_argument("--max-bytes", type=int, default=32_000_000, help="of one request (default: 32 MB)")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds that a request may take (default: 30)")
    parser.add_argument("--max-waiting", type=int, default=256, help="requests under way at a time (default: 256)")
    parser.add_argument("--info", action="store_true", help="GET /info gives the metadata of the artefact")
    return run(parser, serve, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
