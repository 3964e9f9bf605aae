"""Campaign of malformed requests against a running server, with good ones beside.

Bodies are cut, their bytes changed, their parts replaced by other JSON; headers and paths are wrong, too. Meanwhile
other clients send good requests, each of which must be answered as before. A malformed request ends in one of:

- refused: a status from 400 to 499 (or 501), with an error in JSON;
- answered: status 200, because what was changed is still a request, with probabilities that sum to 1;
- wrong: another status, no JSON, or an answer that is no sense;
- cut: no answer at all.

    keras-robust serve serving/flowers/1 --port 8501 &
    python tools/fuzz_requests.py localhost:8501 flowers photo.jpg --cases 5000 --out fuzz_requests.json
"""

import argparse
import base64
import http.client
import json
import random
import sys
import threading
from pathlib import Path
from typing import Any

from campaign import Tally

TIMEOUT = 60
FINE = ("refused", "answered")
OTHER: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, "", "x", [], [[]], {}, {"b64": ""}, {"b64": 3}, {"b64": "####"}, [None], "\ud800", 10**40,
    [[[1, 2, 3]]], [[[[300, 0, 0]]]], [[[[0.5] * 3] * 40] * 40], "jpeg", "serving_default", {"a": {"b": []}},
)  # fmt: skip
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"Content-Type": "application/x-www-form-urlencoded"},
    {"Content-Type": "multipart/form-data; boundary=x"},
    {"Content-Type": "text/plain; charset=utf-16"},
    {"Content-Encoding": "gzip"},
    {"Accept": "image/png"},
    {"Expect": "nothing"},
)
PATHS = ("/v1/models/{}:predict", "/v1/models/{}/versions/1:predict", "/v1/models/{}", "/v1/models/none:predict",
         "/v1/models/{}/versions/x:predict", "/", "/v1/models/../../etc/passwd", "/v1/models/{}:classify")  # fmt: skip


def body_of(draw: random.Random, file: bytes) -> bytes:
    """A body that was good before it met one to three kinds of damage."""
    image = {"b64": base64.b64encode(file).decode()}
    if draw.random() < 0.3:
        data = bytearray(file)
        for _ in range(draw.choice((1, 5, 50))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        image = {"b64": base64.b64encode(bytes(data[: draw.randrange(1, len(data) + 1)])).decode()}
    request: dict[str, Any] = {"signature_name": "jpeg", "instances": [image] * draw.choice((1, 1, 2, 5))}
    kind = draw.randrange(6)
    if kind == 0:
        request[draw.choice([*request, "inputs", "extra"])] = draw.choice(OTHER)
    elif kind == 1:
        request["instances"][draw.randrange(len(request["instances"]))] = draw.choice(OTHER)
    elif kind == 2:
        del request[draw.choice(list(request))]
    elif kind == 3:
        return draw.choice((b"[" * 100_000, b'{"a":' * 50_000, b"", b"null", b"\x00" * 100, b"{}" * 10))
    try:
        text = json.dumps(request).encode()
    except UnicodeEncodeError:
        text = b"\xed\xa0\x80"
    if kind == 4:
        text = text[: draw.randrange(len(text))]
    elif kind == 5:
        data = bytearray(text)
        for _ in range(draw.choice((1, 3, 20))):
            data[min(len(data) - 1, draw.choice((draw.randrange(60), draw.randrange(len(data)))))] = draw.randrange(256)
        text = bytes(data)
    return text


def is_sense(answer: Any) -> bool:
    """Whether an answer holds probabilities, or is the status of a model."""
    if not isinstance(answer, dict):
        return False
    if "model_version_status" in answer:
        return True
    rows = answer.get("predictions", answer.get("outputs"))
    if isinstance(rows, list):
        return all(abs(sum(row["probabilities"]) - 1) < 1e-3 for row in rows)
    return isinstance(rows, dict) and all(abs(sum(row) - 1) < 1e-3 for row in rows["probabilities"])


def ask(address: str, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, text


def case(number: int, seed: int, address: str, model: str, file: bytes) -> tuple[str, str]:
    draw = random.Random(f"{seed}/{number}")
    path = draw.choice(PATHS if draw.random() < 0.2 else PATHS[:1]).format(model)
    method = draw.choice(("GET", "PUT", "DELETE", "HEAD")) if draw.random() < 0.05 else "POST"
    headers = draw.choice(HEADERS)
    body = body_of(draw, file)
    what = f"{method} {path} {headers} {body[:80]!r}"
    try:
        status, answer = ask(address, method, path, body, headers)
    except (OSError, http.client.HTTPException) as error:
        return "cut", f"{what}: {error!r}"
    if status == 200 and (is_sense(answer) or path == "/" or method == "HEAD"):
        return "answered", what
    told = method == "HEAD" or (isinstance(answer, dict) and "error" in answer)
    if (400 <= status < 500 or status == 501) and told:
        return "refused", what
    return "wrong", f"{what}: {status} {answer!r:.200}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("image", type=Path)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clients", type=int, default=4, help="that send malformed requests (default: 4)")
    parser.add_argument("--out", type=Path, help="JSON of the counts and of every case that is not fine")
    options = parser.parse_args()
    file = options.image.read_bytes()
    good = json.dumps({"signature_name": "jpeg", "instances": [{"b64": base64.b64encode(file).decode()}]}).encode()
    path = PATHS[0].format(options.model)
    status, expected = ask(options.address, "POST", path, good, {})
    if status != 200:
        parser.error(f"the good request is answered by {status}: {expected!r:.300}")
    expected = expected["predictions"][0]["probabilities"]
    tally = Tally((*FINE, "right"))
    numbers, lock, done = iter(range(options.cases)), threading.Lock(), threading.Event()

    def send_good() -> None:
        while not done.is_set():
            try:
                status, answer = ask(options.address, "POST", path, good, {})
                found = answer["predictions"][0]["probabilities"] if status == 200 else None
            except (OSError, http.client.HTTPException) as error:
                status, answer, found = 0, repr(error), None
            right = found is not None and max(abs(a - b) for a, b in zip(found, expected)) < 1e-4
            with lock:
                tally.add("good requests", status, "right" if right else "wrong", f"{answer!r:.200}")

    def send_malformed() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            outcome, message = case(number, options.seed, options.address, options.model, file)
            with lock:
                tally.add("malformed requests", number, outcome, message)

    beside = [threading.Thread(target=send_good) for _ in range(2)]
    clients = [threading.Thread(target=send_malformed) for _ in range(options.clients)]
    for thread in (*beside, *clients):
        thread.start()
    for thread in clients:
        thread.join()
    done.set()
    for thread in beside:
        thread.join()
    return tally.finish(options.out, seed=options.seed)


if __name__ == "__main__":
    sys.exit(main())
