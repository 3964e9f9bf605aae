"""An exported SavedModel behind real model servers, over loopback."""

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
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


@pytest.fixture(scope="module")
def litserve(base):
    """Address of a LitServe server."""
    pytest.importorskip("litserve")
    port, log = free_port(), base.parent / "server.log"
    command = [sys.executable, str(ROOT / "recipes" / "serve.py"), str(base / "1"), "--port", str(port)]
    command += ["--timeout", "120"]
    with running(command, port, log):
        client = load_test.Client(f"127.0.0.1:{port}", "insects")
        deadline = time.monotonic() + 120
        while client.post(b"{}")[0] >= 500 and time.monotonic() < deadline:  # its worker is still loading
            time.sleep(0.2)
        client.close()
        yield f"127.0.0.1:{port}"


@pytest.fixture
def client(litserve):
    client = load_test.Client(litserve, "insects")
    yield client
    client.close()


def probabilities(model, pixels):
    logits = model(pixels[None].astype("float32") / 255, training=False).numpy()[0].astype("float64")
    return np.exp(logits) / np.exp(logits).sum()


@pytest.mark.slow
class TestLitServe:
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
    def test_concurrent_clients(self, litserve, photo, clients):
        seconds, _ = load_test.load(litserve, "insects", photo[0], clients, 32)
        assert len(seconds) == 32
        assert load_test.percentile(seconds, 99) < 60

    @pytest.mark.parametrize("name", load_test.malformed())
    def test_malformed_requests_are_refused_and_the_server_lives(self, client, photo, name):
        status, answer = load_test.send(client, load_test.malformed()[name])
        assert 400 <= status <= 500
        assert status == 400 or name == "not JSON"
        assert "error" in answer or name == "not JSON"
        assert client.predict_files([photo[0]])[0] == 200

    def test_a_refused_request_harms_no_other(self, litserve, photo):
        """Both kinds at once, so that they meet in batches."""
        import threading

        statuses = {True: set(), False: set()}

        def work(good):
            client = load_test.Client(litserve, "insects")
            for _ in range(8):
                statuses[good].add(client.predict_files([photo[0] if good else b"no image"])[0])
            client.close()

        threads = [threading.Thread(target=work, args=(good,)) for good in (True, False) * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == {True: {200}, False: {400}}

    def test_load_test_prints_a_table(self, litserve, photo, tmp_path, capsys):
        (tmp_path / "photo.jpg").write_bytes(photo[0])
        arguments = [litserve, "insects", str(tmp_path / "photo.jpg"), "--clients", "1", "2", "--requests", "4"]
        assert load_test.main([*arguments, "--malformed"]) == 0
        output = capsys.readouterr().out
        assert "p95 ms" in output
        assert "FAILED" not in output


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
