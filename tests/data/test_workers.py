"""Worker processes: what they hold, that they give what one process gives, and that they end."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import keras_robust.data as data
from keras_robust.data import TrainPipeline
from keras_robust.machine import runs
from tests.data import files, shards
from tests.data.process_sources import Failing, Large, OfProcesses, Untold, shared_prefix

pytest.importorskip("grain")
pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[2]
SHARED = Path("/dev/shm")
linux_only = pytest.mark.skipif(not SHARED.is_dir(), reason="shared memory is looked at where Linux shows it")


def shared(report):
    """The shared memory that the workers of a source hold."""
    return list(SHARED.glob(f"{shared_prefix(report).lstrip('/')}*"))


def pipeline(source, workers, **options):
    return TrainPipeline(source, "basic", 8, batch_size=4, workers=workers, engine="grain", **options)


def test_workers_give_what_one_process_gives_at_any_step(tmp_path):
    """Of floats and bytes, for any number of workers, in turn and from anywhere; processes start once."""
    files.image_folder(tmp_path)
    source = data.source(tmp_path, "train")
    options = {"policy": "heavy", "resolution": 16, "batch_size": 8, "seed": 3}
    for on_device, counts in ((False, (1, 3)), (True, (2,))):
        alone = TrainPipeline(source, workers=0, on_device=on_device, **options)
        for count in counts:
            several = TrainPipeline(source, workers=count, on_device=on_device, **options)
            for step in (5, 6, 7, 8, 2, 3, 1000, 7):
                for computed, expected in zip(several.batch(step), alone.batch(step), strict=True):
                    np.testing.assert_array_equal(computed, expected)
                    assert computed.dtype == (np.uint8 if on_device and computed.ndim == 4 else np.float32)
            several.close()


def test_workers_import_no_framework_and_start_once(tmp_path):
    train = pipeline(OfProcesses(tmp_path), 2)
    for epoch in range(3):
        for _ in train.dataset(epoch * 10, 10):
            pass
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert len(found) == 2
    assert str(os.getpid()) not in found
    assert set(found.values()) == {""}
    train.close()
    assert not any(runs(int(process)) for process in found)


def test_errors_of_workers_are_raised_here(tmp_path):
    """By the file's name; asked again, the pipeline goes on."""
    train = pipeline(Failing(tmp_path), 2)
    with pytest.raises(ValueError, match=r"17\.jpg cannot be read as an image"):
        [train.batch(step) for step in range(10)]
    assert not any(runs(int(path.name)) for path in tmp_path.iterdir())
    skipping = pipeline(Failing(tmp_path), 1, skip_corrupt=True)
    for step in range(10):
        skipping.batch(step)
    assert skipping.skipped == {"17.jpg": "17.jpg cannot be read as an image"}
    skipping.close()


def test_what_a_source_holds_in_memory_is_there_once(tmp_path):
    train = pipeline(Large(tmp_path), 2)
    for step in range(4):
        train.batch(step)
    train.close()
    found = [path.read_text().split() for path in tmp_path.iterdir()]
    assert len(found) == 2
    assert {owned for owned, _ in found} == {"False"}
    assert all(int(number) % 1000 == 0 for _, number in found)


def test_errors_that_cannot_travel_are_raised_all_the_same(tmp_path):
    with pytest.raises(RuntimeError, match="Foreign: the connection is gone"):
        pipeline(Untold(tmp_path), 1).batch(0)


@linux_only
def test_batches_ahead_lie_in_shared_memory(tmp_path):
    train = TrainPipeline(OfProcesses(tmp_path), "basic", 64, batch_size=4, workers=1, engine="grain")
    train.batch(0)
    deadline = time.monotonic() + 20
    while not shared(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert shared(tmp_path)
    train.close()
    assert not shared(tmp_path)


def test_a_killed_worker_is_an_error(tmp_path):
    train = pipeline(OfProcesses(tmp_path), 1)
    train.batch(0)
    os.kill(int(next(tmp_path.iterdir()).name), signal.SIGKILL)
    with pytest.raises(RuntimeError, match="exit code -9"):
        [train.batch(step) for step in range(1, 20)]


@linux_only
def test_batches_go_through_pipes_where_shared_memory_is_small(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    several, alone = (pipeline(OfProcesses(tmp_path), workers) for workers in (1, 0))
    with pytest.warns(UserWarning, match=r"/dev/shm has 0 MiB free.*through pipes"):
        images, labels = several.batch(0)
    for computed, expected in zip((images, labels, *several.batch(1)), (*alone.batch(0), *alone.batch(1)), strict=True):
        np.testing.assert_array_equal(computed, expected)
    assert not shared(tmp_path)
    several.close()


@pytest.mark.parametrize("kind", ["tar", "shards", "parquet"])
def test_sources_with_open_files_travel(tmp_path, kind):
    """Archives are opened anew in each process."""
    if kind == "tar":
        shards.tar(tmp_path / "images.tar", {f"{'ab'[n % 2]}/{n}.png": shards.png(n) for n in range(20)})
    for place, numbers in enumerate((range(10), range(10, 20))):
        if kind == "shards":
            shards.tar(tmp_path / f"{place}.tar", shards.samples(numbers))
        if kind == "parquet":
            shards.parquet(tmp_path / f"{place}.parquet", numbers)
    source = data.source(tmp_path / "images.tar" if kind == "tar" else tmp_path, None)
    several, alone = pipeline(source, 2), pipeline(source, 0)
    for step in range(4):
        for computed, expected in zip(several.batch(step), alone.batch(step), strict=True):
            np.testing.assert_array_equal(computed, expected)
    several.close()


def test_sources_that_cannot_travel_are_refused(tmp_path):
    source = OfProcesses(tmp_path)
    source.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"source must be fit for pickle, .*lock.* or take workers=0"):
        pipeline(source, 1).batch(0)
    assert pipeline(source, 0).batch(0)[0].shape == (4, 8, 8, 3)


# A script as people write them: no `if __name__ == "__main__"`, a class of its own, frameworks at the top.
PROGRAM = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background inherit that it is ignored
import keras
import numpy as np
import keras_robust as kr
from tests.data.process_sources import OfProcesses
from pathlib import Path

class Own(OfProcesses):
    pass

report, end = Path(sys.argv[1]), sys.argv[2]
train = kr.data.TrainPipeline(Own(report), "basic", 64, batch_size=4, workers=2, engine="grain")
for step in range(8):
    images, labels = train.batch(step)  # the last lives at the end
print("ready", flush=True)
if end == "exit":
    os._exit(3)
if end == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if end == "interrupt":
    while True:
        step += 1
        train.batch(step)
print("at the end", flush=True)
"""


@linux_only
@pytest.mark.parametrize("end", ["normal", "exit", "kill", "interrupt"])
def test_workers_end_with_their_program(tmp_path, end):
    """However it ends, silently, and nothing of theirs stays in shared memory."""
    (tmp_path / "report").mkdir()
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    program = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "report"), end],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert program.stdout.readline() == "ready\n", program.stderr.read()[-2000:]
        workers = [int(path.name) for path in (tmp_path / "report").iterdir()]
        assert len(workers) == 2
        if end == "interrupt":
            os.killpg(program.pid, signal.SIGINT)  # as a terminal does
        errors = program.communicate(timeout=60)[1]
    finally:
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGKILL)
    assert program.returncode == {"normal": 0, "exit": 3, "kill": -9, "interrupt": -2}[end], errors[-2000:]
    deadline = time.monotonic() + 20
    while any(map(runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(runs, workers))
    while shared(tmp_path / "report") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not shared(tmp_path / "report")
    assert errors.count("Traceback") == (end == "interrupt"), errors[-2000:]
    assert "Exception ignored" not in errors, errors[-2000:]
    assert ("leaked" in errors) <= (end in ("exit", "kill")), errors[-2000:]  # what the system's tracker tidies up
    assert {path.read_text() for path in (tmp_path / "report").iterdir()} == {""}
