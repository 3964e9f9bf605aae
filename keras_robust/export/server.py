"""Server of an exported SavedModel, by the contract of TensorFlow Serving's REST interface.

One process, on Starlette and uvicorn: it ends with whoever ends it, by any signal, and leaves the port free. Requests
that wait while a batch runs are the next batch.
"""

import asyncio
import base64
import binascii
import contextlib
import json
import queue
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from anyio import to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

# Of which a model has those of its task.
OUTPUTS = ("probabilities", "classes", "confidences", "names", "top5_classes", "top5_names", "top5_probabilities")
BODY = 'the body must be JSON: {"signature_name": ..., "instances": [...]}'


@dataclass(frozen=True)
class Limits:
    """What a server spends on a request.

    Attributes:
        batch: images from which on no further request joins those that run together.
        images: in one request.
        bytes: of one request.
        seconds: that a request may take.
        waiting: requests that are under way at a time; further ones are answered with 503.
    """

    batch: int
    images: int
    bytes: int
    seconds: float
    waiting: int


class Refused(ValueError):
    """A request that has no answer; the message goes to the client, with an HTTP status."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Job:
    """Images of one request, uint8 (n, height, width, 3), and who waits for what the model says of them."""

    images: np.ndarray
    done: Callable[[dict[str, np.ndarray] | Refused], object]


class Batcher:
    """A thread that runs the images of all waiting requests together, those of one size in one batch.

    Args:
        run: from images (n, height, width, 3) to outputs by name, (n, ...); may raise `Refused`.
        most: images from which on no further request joins a batch.
    """

    def __init__(self, run: Callable[[np.ndarray], dict[str, np.ndarray]], most: int) -> None:
        self._run, self._most = run, most
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        self._jobs.put(job)

    def close(self) -> None:
        """Finish what waits, and end."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch, count = [job], len(job.images)
            while count < self._most and not self._jobs.empty():
                following = self._jobs.get()
                if following is None:
                    self._jobs.put(None)
                    break
                batch.append(following)
                count += len(following.images)
            self._answer(batch)

    def _answer(self, batch: list[Job]) -> None:
        for size in {job.images.shape[1:] for job in batch}:
            jobs = [job for job in batch if job.images.shape[1:] == size]
            try:
                outputs = self._run(np.concatenate([job.images for job in jobs]))
            except Refused as refusal:
                for job in jobs:
                    job.done(refusal)
                continue
            except Exception as error:
                for job in jobs:
                    job.done(Refused(f"the model failed: {type(error).__name__}", 500))
                continue
            start = 0
            for job in jobs:
                stop = start + len(job.images)
                job.done({name: values[start:stop] for name, values in outputs.items()})
                start = stop


class Classifier:
    """An exported SavedModel that answers requests.

    Args:
        path: of its folder.
        limits: of a request.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        import tensorflow as tf

        self._tf, self._loaded = tf, tf.saved_model.load(str(path))
        self._limits = limits
        self._batcher = Batcher(lambda images: self._call("serving_default", images), limits.batch)

    def close(self) -> None:
        self._batcher.close()

    async def answer(self, body: bytes) -> dict[str, Any]:
        """What a request is answered with.

        Raises:
            Refused: it has no answer.
        """
        images, by_row = await to_thread.run_sync(self._images, body)
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[dict[str, np.ndarray] | Refused] = loop.create_future()

        def settle(outcome: dict[str, np.ndarray] | Refused) -> None:
            if not waiting.done():  # its client may have gone
                waiting.set_result(outcome)

        self._batcher.submit(Job(images, lambda outcome: loop.call_soon_threadsafe(settle, outcome)))
        outcome = await waiting
        if isinstance(outcome, Refused):
            raise outcome
        columns = {name: _plain(outcome[name]) for name in OUTPUTS if name in outcome}
        if not by_row:
            return {"outputs": columns}
        return {"predictions": [dict(zip(columns, row)) for row in zip(*columns.values())]}

    def _images(self, body: bytes) -> tuple[np.ndarray, bool]:
        """Images of a request, and whether they came, and go, row by row."""
        try:
            request = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refused(f"{BODY}; this is none: {str(error)[:100]}") from None
        if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
            raise Refused(f'{BODY}, or "inputs" in the place of "instances"')
        by_row = "instances" in request
        instances, signature = request.get("instances", request.get("inputs")), request.get("signature_name")
        if isinstance(instances, dict) and instances.keys() == {"images"}:
            instances = instances["images"]
        if not isinstance(instances, list) or not 1 <= len(instances) <= self._limits.images:
            received = len(instances) if isinstance(instances, list) else type(instances).__name__
            raise Refused(f"there must be a list of 1 to {self._limits.images} images; received {received}")
        named = all(isinstance(each, dict) and each.keys() == {"images"} for each in instances)
        instances = [each["images"] for each in instances] if named else instances
        if signature == "jpeg":
            return self._call("preprocess", [_bytes(instance) for instance in instances])["images"], by_row
        if signature in (None, "", "serving_default"):
            return _pixels(instances), by_row
        raise Refused(f"signature_name must be jpeg or serving_default; received {signature!r:.100}")

    def _call(self, signature: str, images: Any) -> dict[str, np.ndarray]:
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
    except (ValueError, OverflowError) as error:
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


async def _body(request: Request, most: int) -> bytes:
    """The body of a request, of any content type, as far as it is not too large."""
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > most:
            raise Refused(f"a request must have at most {most:,} bytes", 413)
        parts.append(part)
    return b"".join(parts)


def application(path: Path, name: str, limits: Limits, info: bool = False) -> Starlette:
    """The web application that serves one model.

    Args:
        path: folder of the SavedModel.
        name: of the model in the addresses.
        limits: of a request.
        info: whether `GET /info` gives the artefact's metadata.

    Addresses: `POST /v1/models/NAME:predict`, `GET /v1/models/NAME`, both also with `/versions/N` after the name, as
    in TensorFlow Serving; `GET /health`.
    """
    version = path.resolve().name if path.resolve().name.isdecimal() else "1"
    state: dict[str, Any] = {}
    under_way = 0

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        state["classifier"] = await to_thread.run_sync(Classifier, path.resolve(), limits)
        yield
        await to_thread.run_sync(state["classifier"].close)

    async def predict(request: Request) -> Response:
        nonlocal under_way
        if under_way >= limits.waiting:
            return _error(Refused("too many requests wait; try again later", 503))
        under_way += 1
        try:
            async with asyncio.timeout(limits.seconds):
                body = await _body(request, limits.bytes)
                return JSONResponse(await state["classifier"].answer(body))
        except Refused as refusal:
            return _error(refusal)
        except TimeoutError:
            return _error(Refused(f"no answer within {limits.seconds:g} s", 503))
        except ClientDisconnect:
            return Response(status_code=400)
        finally:
            under_way -= 1

    async def status(_: Request) -> Response:
        fine = {"error_code": "OK", "error_message": ""}
        return JSONResponse({"model_version_status": [{"version": version, "state": "AVAILABLE", "status": fine}]})

    async def health(_: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def metadata(_: Request) -> Response:
        return Response((path / "assets" / "metadata.json").read_bytes(), media_type="application/json")

    places = [f"/v1/models/{name}", f"/v1/models/{name}/versions/{version}"]
    routes = [Route("/health", health)]
    routes += [Route(f"{place}:predict", predict, methods=["POST"]) for place in places]
    routes += [Route(place, status) for place in places]
    if info:
        routes.append(Route("/info", metadata))
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: _in_json, 405: _in_json})


def _error(refusal: Refused) -> JSONResponse:
    return JSONResponse({"error": str(refusal)}, refusal.status)


async def _in_json(_: Request, error: Any) -> Response:
    """An answer in JSON where Starlette would give plain text."""
    return JSONResponse({"error": f"{error.detail}: see keras-robust serve --help"}, error.status_code)
