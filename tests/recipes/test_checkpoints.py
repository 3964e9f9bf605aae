"""Files of checkpoints: whole or not there, checked, without pickle."""

import os
import pickle
import resource
import signal
import struct

import keras
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from keras_robust.recipes import CheckpointError, checkpoints
from keras_robust.recipes.checkpoints import CheckpointFolder, peek, read, write

pytestmark = pytest.mark.once
ARRAYS = {
    "model/00000/a/kernel": np.arange(6, dtype="float32").reshape(2, 3),
    "model/00001/b": np.array(3, "int64"),
    "optimizer/00000/c": np.array([1.5, -2], ml_dtypes.bfloat16),
    "optimizer/00001/empty": np.zeros((0, 4), "float16"),
}


def test_what_was_written_is_read(tmp_path):
    write(tmp_path / "a.safetensors", ARRAYS, 7, {"score": 0.5})
    checkpoint = peek(tmp_path / "a.safetensors")
    assert (checkpoint.step, checkpoint.info) == (7, {"score": 0.5})
    arrays = read(tmp_path / "a.safetensors")
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    # A stranger to this package can read it too.
    np.testing.assert_array_equal(load_file(tmp_path / "a.safetensors")["model/00001/b"], 3)


def test_every_cut_and_every_flipped_byte_is_noticed(tmp_path):
    write(tmp_path / "a.safetensors", ARRAYS, 7, {})
    whole = (tmp_path / "a.safetensors").read_bytes()
    path = tmp_path / "b.safetensors"
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read(path)
    unnoticed = 0
    for place in range(0, len(whole), 41):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        try:
            arrays = read(path)
        except CheckpointError:
            continue
        # A bit that the format does not use: of a time, say. What is read must be right.
        unnoticed += 1
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(arrays[name], array)
    assert unnoticed < 40


@pytest.mark.parametrize("content", ["pickle", "npz", "weights", "header", "bomb", "text", "nothing"])
def test_foreign_files_are_refused(content, tmp_path):
    path = tmp_path / "a.safetensors"
    if content == "pickle":
        path.write_bytes(pickle.dumps(ARRAYS))
    elif content == "npz":
        with path.open("wb") as file:
            np.savez(file, a=1)
    elif content == "text":
        path.write_text("step 7")
    elif content == "weights":
        save_file({"a": np.zeros(3)}, path)
    elif content == "header":
        save_file({"a": np.zeros(3)}, path, metadata={"checkpoint": "[" * 100_000})
    elif content == "bomb":
        path.write_bytes(struct.pack("<Q", 1 << 40) + b'{"a": {"dtype": "F32", "shape": [1000000000000]}}')
    with pytest.raises(CheckpointError):
        read(path)


def test_full_disk_leaves_the_old_one(tmp_path):
    """A limit on the size of files stands for it: the same error of the same call."""
    folder = CheckpointFolder(tmp_path, keep_last=1)
    folder.save(ARRAYS, 1, {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        with pytest.raises(CheckpointError, match=r"could not be written: .*File too large.*Earlier"):
            folder.save({"a": np.zeros(10_000)}, 2, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert os.listdir(tmp_path) == ["step-000000001.safetensors"]
    assert folder.latest()[0].step == 1


def test_keeps_the_last_and_the_best(tmp_path):
    folder = CheckpointFolder(tmp_path / "new", keep_last=2, keep_best=1)
    for step, score in enumerate([0.1, 0.5, None, 0.3, 0.5, 0.2, None, None], start=1):
        folder.save(ARRAYS, step, {"score": score})
    assert [checkpoint.step for checkpoint in folder.readable()] == [8, 7, 5]
    assert folder.best().step == 5
    assert CheckpointFolder(tmp_path / "none").latest() is None
    assert CheckpointFolder(tmp_path / "none").best() is None


def test_another_model_is_refused():
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    net.compile("sgd", "mse")
    arrays = checkpoints.capture(net)
    before = net.get_weights()
    arrays["model/00000/dense/kernel"] = np.zeros((4, 2), "float32")
    with pytest.raises(CheckpointError, match="of another model or optimizer"):
        checkpoints.restore(net, {**arrays, "model/00099/more": np.zeros(3)})
    for a, b in zip(before, net.get_weights()):
        np.testing.assert_array_equal(a, b)
