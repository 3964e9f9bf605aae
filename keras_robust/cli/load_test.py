"""Load test of a server of an exported model, from the command line: `keras-robust load-test`.

It uses the standard library alone.
"""

import base64
import http.client
import json
import struct
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_robust.cli.command import CommandParser

DESCRIPTION = """\
Load a server of an exported model over its REST interface, and send it what it must refuse.

It speaks the contract of TensorFlow Serving, which `keras-robust serve` keeps too."""
EXAMPLES = """\
examples:
  keras-robust load-test localhost:8501 flowers photo.jpg
  keras-robust load-test localhost:8501 flowers photo.jpg --clients 1 8 32 --requests 256 --malformed
"""
TIMEOUT = 120  # seconds for one answer


class Client:
    """One connection to a server of models."""

    def __init__(self, address: Any, model: Any) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=TIMEOUT)
        self._path = f"/v1/models/{model}:predict"

    def post(self, body: Any) -> Any:
        """Status and answer (parsed, if it is JSON) to the bytes of a request."""
        self._connection.request("POST", self._path, body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        text = response.read()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text.decode(errors="replace")

    def predict(self, instances: Any, signature: Any) -> Any:
        """Status and answer for the instances of a signature."""
        return self.post(json.dumps({"signature_name": signature, "instances": instances}).encode())

    def predict_files(self, files: Any) -> Any:
        """Status and answer for encoded images, a list of bytes."""
        return self.predict([{"b64": base64.b64encode(data).decode()} for data in files], "jpeg")

    def close(self) -> None:
        self._connection.close()


def load(address: Any, model: Any, file: Any, clients: Any, requests: Any) -> Any:
    """Seconds of each request, sorted, and seconds of the whole, with as many clients at a time.

    Raises:
        RuntimeError: a request failed.
    """
    seconds: list[float] = []
    errors: list[str] = []
    left = iter(range(requests))
    lock = threading.Lock()

    def work() -> None:
        client = Client(address, model)
        try:
            while True:
                with lock:
                    if next(left, None) is None or errors:
                        return
                start = time.perf_counter()
                status, answer = client.predict_files([file])
                elapsed = time.perf_counter() - start
                with lock:
                    seconds.append(elapsed) if status == 200 else errors.append(f"{status}: {answer!r:.300}")
        except (OSError, http.client.HTTPException) as error:
            errors.append(repr(error))
        finally:
            client.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise RuntimeError(f"{len(errors)} requests failed, the first with {errors[0]}")
    return sorted(seconds), time.perf_counter() - start


def percentile(seconds: Any, percent: Any) -> Any:
    """Of sorted values, the one below which so many percent of them lie."""
    return seconds[min(len(seconds) - 1, int(len(seconds) * percent / 100))]


def malformed() -> Any:
    """Requests that a server must refuse, by name, as (instances, signature) or bytes."""

    def b64(data: Any) -> Any:
        return {"b64": base64.b64encode(data).decode()}

    return {
        "not JSON": b"\xff\xfe{",
        "no instances": b"{}",
        "empty batch": ([], "jpeg"),
        "empty batch of pixels": ([], "serving_default"),
        "not an image": ([b64(b"hello")], "jpeg"),
        "not base64": ([{"b64": "%%%"}], "jpeg"),
        "truncated JPEG": ([b64(b"\xff\xd8\xff\xe0\x00\x10JFIF")], "jpeg"),
        "decompression bomb": ([b64(png(60_000, 60_000))], "jpeg"),
        "huge dimensions": ([b64(png(2**31 - 1, 1))], "jpeg"),
        "pixels of a wrong dtype": ([[[[0.5, 0.5, 0.5]] * 64] * 64], "serving_default"),
        "pixels out of range": ([[[[256, 0, 0]] * 64] * 64], "serving_default"),
        "pixels too few": ([[[[0, 0, 0]]]], "serving_default"),
        "too large an image": ([[[[0, 0, 0]] * 5000] * 64], "serving_default"),
        "images of two sizes": ([[[[0, 0, 0]] * 64] * 64, [[[0, 0, 0]] * 64] * 48], "serving_default"),
        "unknown signature": ([b64(b"x")], "train"),
    }


def png(width: Any, height: Any) -> Any:
    """A PNG file of a few hundred bytes that states a size, and holds less."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def send(client: Any, request: Any) -> Any:
    """Status and answer of one of the `malformed` requests."""
    return client.post(request) if isinstance(request, bytes) else client.predict(*request)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = CommandParser("load-test", DESCRIPTION, EXAMPLES)
    parser.add_argument("address", help="host:port")
    parser.add_argument("model", help="its name at the server")
    parser.add_argument("image", type=Path, help="JPEG or PNG file to send")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32], help="at a time (default: 1 8 32)")
    parser.add_argument("--requests", type=int, default=128, help="for each number of clients (default: 128)")
    parser.add_argument("--malformed", action="store_true", help="then send what must be refused")
    args = parser.parse_args(arguments)
    try:
        file, failed = args.image.read_bytes(), 0
    except OSError as error:
        parser.error(f"image must be a file; {error}")
    client = Client(args.address, args.model)
    try:
        status, answer = client.predict_files([file])
        if status != 200:
            raise RuntimeError(f"{status}: {answer!r:.300}")
        print(f"{args.image}: {answer['predictions'][0].get('top5_names')}")
        print(f"{'clients':>8}{'requests':>10}{'per second':>12}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}")
        for clients in args.clients:
            load(args.address, args.model, file, clients, 2 * clients)  # to warm up
            seconds, whole = load(args.address, args.model, file, clients, args.requests)
            marks = "".join(f"{1000 * percentile(seconds, percent):9.1f}" for percent in (50, 95, 99))
            print(f"{clients:8}{len(seconds):10}{len(seconds) / whole:12.1f}{marks}", flush=True)
        client.close()  # it rested while the others worked, and the server may have let it go; it connects again
        for name, request in malformed().items() if args.malformed else ():
            status, answer = send(client, request)
            refused = 400 <= status < 600 and client.predict_files([file])[0] == 200
            failed += not refused
            print(f"{'refused' if refused else 'FAILED':9}{name:26}{status}  {answer!r:.120}")
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    finally:
        client.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
