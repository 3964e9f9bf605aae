"""An exported SavedModel behind real model servers, over loopback."""

import base64
import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
from PIL import Image

import keras_robust as kr
from keras_robust.cli import load_test
from tests import scripts
from tests.export.samples import NAMES, small_model

if keras.backend.backend() != "tensorflow":
    pytest.skip("the server loads the same SavedModel, whatever made it", allow_module_level=True)

ROOT = scripts.ROOT


@pytest.fixture(scope="module")
def model():
    return small_model("convnext_atto_convstem")


@pytest.fixture(scope="module")
def base(model, tmp_path_factory):
    """Folder `insects` with the SavedModel `1` in it."""
    path = tmp_path_factory.mktemp("serving") / "insects"
    kr.export.export(model, path / "1", class_names=NAMES, resolution=32, verify=False)
    return path


@pytest.fixture(scope="module")
def photo():
    """A JPEG file of part of a photograph, and the pixels that the model is evaluated on."""
    pixels = kr.data.photo_crops("val", per_class=1).image(4)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue(), kr.data.resize_and_crop(np.asarray(Image.open(file)), 32)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def running(command, port, log):
    """A server and its processes, which end with the block."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    with log.open("w") as output:
        options = {"stdout": output, "stderr": subprocess.STDOUT, "env": environment, "cwd": log.parent}
        process = subprocess.Popen(command, start_new_session=True, **options)
        try:
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.2)
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def command_on(base, port):
    return [
        sys.executable,
        str(ROOT / "recipes" / "serve.py"),
        str(base / "1"),
        "--port",
        str(port),
        "--timeout",
        "120",
    ]


@pytest.fixture(scope="module")
def address(base):
    """Address of a server."""
    pytest.importorskip("uvicorn")
    port = free_port()
    with running(command_on(base, port), port, base.parent / "server.log"):
        yield f"127.0.0.1:{port}"


@pytest.fixture
def client(address):
    client = load_test.Client(address, "insects")
    yield client
    client.close()


def probabilities(model, pixels):
    logits = model(pixels[None].astype("float32") / 255, training=False).numpy()[0].astype("float64")
    return np.exp(logits) / np.exp(logits).sum()


@pytest.mark.slow
class TestServer:
    def test_served_is_what_was_evaluated(self, client, model, photo):
        file, pixels = photo
        expected = probabilities(model, pixels)
        status, answer = client.predict_files([file, file])
        assert status == 200
        for row in answer["predictions"]:
            np.testing.assert_allclose(row["probabilities"], expected, atol=0.01)
            assert row["classes"] == expected.argmax()
            assert row["names"] == NAMES[expected.argmax()]
            assert len(row["top5_names"]) == 5
        status, answer = client.predict([pixels.tolist()], "serving_default")
        assert status == 200
        np.testing.assert_allclose(answer["predictions"][0]["probabilities"], expected, atol=1e-5)

    @pytest.mark.parametrize("clients", [1, 8, 32])
    def test_concurrent_clients(self, address, photo, clients):
        seconds, _ = load_test.load(address, "insects", photo[0], clients, 32)
        assert len(seconds) == 32
        assert load_test.percentile(seconds, 99) < 60

    @pytest.mark.parametrize("name", load_test.malformed())
    def test_malformed_requests_are_refused_and_the_server_lives(self, client, photo, name):
        status, answer = load_test.send(client, load_test.malformed()[name])
        assert status == 400
        assert "error" in answer
        assert client.predict_files([photo[0]])[0] == 200

    def test_a_refused_request_harms_no_other(self, address, photo):
        """Both kinds at once, so that they meet in batches."""
        statuses = {True: set(), False: set()}

        def work(good):
            client = load_test.Client(address, "insects")
            for _ in range(8):
                statuses[good].add(client.predict_files([photo[0] if good else b"no image"])[0])
            client.close()

        threads = [threading.Thread(target=work, args=(good,)) for good in (True, False) * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == {True: {200}, False: {400}}

    @pytest.mark.parametrize(
        ("kind", "body", "status"),
        [
            ("application/x-www-form-urlencoded", None, 200),  # what curl -d says of JSON
            ("text/plain", None, 200),
            ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--", 400),
            ("application/json", b"", 400),
            ("application/json", b'{"instances": [', 400),
            ("application/json", b"[" * 100_000, 400),
            ("application/json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
            ("application/json", b'{"instances": [1e999]}', 400),
            ("application/json", b'{"instances": [[[[1' + b"0" * 400 + b",0,0]]]]}", 400),
            ("application/json", b"{" + b" " * 33_000_000 + b"}", 413),
        ],
    )
    def test_bodies_of_all_kinds(self, address, photo, kind, body, status):
        """Whatever a body calls itself, it is answered, and never by an error of the server's own."""
        instances = [{"b64": base64.b64encode(photo[0]).decode()}]
        body = json.dumps({"signature_name": "jpeg", "instances": instances}) if body is None else body
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request("POST", "/v1/models/insects:predict", body, {"Content-Type": kind})
        response = connection.getresponse()
        answer = json.loads(response.read())
        assert (response.status, "predictions" in answer) == (status, status == 200)
        connection.close()

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/v1/models/insects", 200),
            ("GET", "/v1/models/insects/versions/1", 200),
            ("GET", "/health", 200),
            ("GET", "/v1/models/insects:predict", 405),
            ("POST", "/v1/models/others:predict", 404),
            ("GET", "/docs", 404),
            ("GET", "/info", 404),
        ],
    )
    def test_addresses(self, address, method, path, status):
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
        assert response.status == status
        if path.startswith("/v1") and status == 200:
            assert json.loads(body)["model_version_status"][0]["state"] == "AVAILABLE"
        connection.close()

    def test_forms_of_a_request(self, client, photo):
        """Columns, named inputs and versions, as TensorFlow Serving has them: the same answers."""
        pixels = photo[1].tolist()
        expected = client.predict([pixels], "serving_default")[1]["predictions"][0]
        for inputs in ([pixels], {"images": [pixels]}):
            status, answer = client.post(json.dumps({"inputs": inputs}).encode())
            assert status == 200
            assert {name: column[0] for name, column in answer["outputs"].items()} == expected
        assert client.post(json.dumps({"instances": [{"images": pixels}]}).encode())[1]["predictions"] == [expected]
        status, answer = client.post(json.dumps({"instances": [pixels], "inputs": [pixels]}).encode())
        assert status == 400

    def test_load_test_prints_a_table(self, address, photo, tmp_path, capsys):
        (tmp_path / "photo.jpg").write_bytes(photo[0])
        arguments = [address, "insects", str(tmp_path / "photo.jpg"), "--clients", "1", "2", "--requests", "4"]
        assert load_test.main([*arguments, "--malformed"]) == 0
        output = capsys.readouterr().out
        assert "p95 ms" in output
        assert "FAILED" not in output


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_ended_by_a_signal_it_leaves_nothing(base, photo, how):
    """What is under way is answered (not after SIGKILL), no process stays, and the port can be had again at once."""
    pytest.importorskip("uvicorn")
    port = free_port()
    with running(command_on(base, port), port, base.parent / f"{how}.log") as process:
        client = load_test.Client(f"127.0.0.1:{port}", "insects")
        assert client.predict_files([photo[0]])[0] == 200
        answers = []
        late = load_test.Client(f"127.0.0.1:{port}", "insects")
        thread = threading.Thread(target=lambda: answers.append(late.predict_files([photo[0]] * 64)[0]))
        if how == signal.SIGTERM:
            thread.start()
            time.sleep(0.2)
        os.kill(process.pid, how)
        process.wait(timeout=60)
        if how == signal.SIGTERM:
            thread.join(60)
            assert answers == [200]
        client.close()
        late.close()
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))


def test_load_test_without_a_server(tmp_path, capsys):
    (tmp_path / "photo.jpg").touch()
    assert load_test.main([f"127.0.0.1:{free_port()}", "x", str(tmp_path / "photo.jpg")]) == 1
    assert "refused" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tensorflow_model_server") is None, reason="needs TensorFlow Serving's binary")
class TestTensorFlowServing:
    @pytest.fixture(scope="class")
    def ports(self, base):
        rest, grpc = free_port(), free_port()
        command = ["tensorflow_model_server", f"--rest_api_port={rest}", f"--port={grpc}"]
        command += ["--model_name=insects", f"--model_base_path={base}"]
        with running(command, rest, base.parent / "tensorflow_serving.log"):
            yield rest, grpc

    def test_rest(self, ports, model, photo):
        client = load_test.Client(f"127.0.0.1:{ports[0]}", "insects")
        status, answer = client.predict_files([photo[0]])
        assert status == 200
        expected = probabilities(model, photo[1])
        np.testing.assert_allclose(answer["predictions"][0]["probabilities"], expected, atol=0.01)
        for name, request in load_test.malformed().items():
            assert load_test.send(client, request)[0] >= 400, name
            assert client.predict_files([photo[0]])[0] == 200

    def test_grpc(self, ports, model, photo):
        grpc = pytest.importorskip("grpc")
        predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")
        from tensorflow import make_ndarray, make_tensor_proto
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "insects", "logits"
        request.inputs["images"].CopyFrom(make_tensor_proto(photo[1][None].astype("float32") / 255))
        with grpc.insecure_channel(f"127.0.0.1:{ports[1]}") as channel:
            answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=60)
        expected = model(photo[1][None].astype("float32") / 255, training=False)
        np.testing.assert_allclose(make_ndarray(answer.outputs["logits"]), expected, atol=1e-4)
