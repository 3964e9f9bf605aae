"""Programs end although their input pipeline is still at work."""

import os
import subprocess
import sys
import time
from pathlib import Path

import keras
import pytest

pytest.importorskip("tensorflow")
if keras.backend.backend() != "tensorflow":
    pytest.skip("the input pipeline is TensorFlow's whatever the backend", allow_module_level=True)
host = pytest.importorskip("keras_robust.data.tf_functions")

PROGRAM = """
import time
import tensorflow as tf
from keras_robust.data.tf_functions import numpy_function

def slow(number):
    time.sleep(0.05)
    return number

data = tf.data.Dataset.range(2**60).map(lambda i: numpy_function(slow, [i], tf.int64), num_parallel_calls=2)
batches = iter(data.batch(4).prefetch(4))
print(next(batches).numpy())
"""


def test_a_program_ends_while_batches_are_prepared():
    """Left to itself, TensorFlow waits for ever for a thread that ended with the interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "[0 1 2 3]\n"


def test_waits_for_calls_and_for_a_moment_of_rest(monkeypatch):
    monkeypatch.setattr(host, "REST_SECONDS", 0.2)
    calls = host.Calls()
    begun = time.monotonic()
    calls.wait()
    assert time.monotonic() - begun < 0.2  # none was ever made
    with calls:
        pass
    calls.wait()
    assert time.monotonic() - begun > 0.2
    monkeypatch.setattr(host, "MOST_SECONDS", 0.4)
    with calls:
        begun = time.monotonic()
        calls.wait()
        assert time.monotonic() - begun > 0.4
