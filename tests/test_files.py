import os
import subprocess
import sys

import pytest

from keras_robust import files, machine
from keras_robust.files import write_text, written_aside

pytestmark = pytest.mark.once


def interrupted(path):
    with written_aside(path) as aside:
        assert aside.suffix == path.suffix
        aside.write_text("second")
        raise RuntimeError("power cut")


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "ä first")
    with pytest.raises(RuntimeError, match="power cut"):
        interrupted(path)
    assert path.read_text(encoding="utf-8") == "ä first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_nobody_wrote(tmp_path):
    with pytest.raises(FileNotFoundError), written_aside(tmp_path / "file"):
        pass
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from keras_robust.files import written_aside
with written_aside(sys.argv[1]) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_aside_is_removed(tmp_path, monkeypatch):
    """Whatever is written next in the folder; not what a living process has aside, nor another machine's."""
    path = tmp_path / "state-000010.npz"
    assert subprocess.run([sys.executable, "-c", KILLED, path], check=False).returncode == -9
    assert len(list(tmp_path.iterdir())) == 1
    others = [tmp_path / f".{machine.identity()}.{os.getppid()}.1.living.npz", tmp_path / ".0123abcd.1.1.elsewhere.npz"]
    for other in others:
        other.write_text("half")
    monkeypatch.setattr(files, "_tidied", set())
    write_text(tmp_path / "state-000020.npz", "whole")
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "state-000020.npz"])


def test_reading_at_a_place_without_the_system_call(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    monkeypatch.delattr(os, "pread")
    descriptor = os.open(path, files.READ_ONLY)
    assert files.pread(descriptor, 5, 20) == bytes(range(20, 25))
    assert files.pread(descriptor, 5, 3) == bytes(range(3, 8))
    os.close(descriptor)


def test_cores_without_the_system_call(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.available_cores() == os.cpu_count()


def test_cores_are_shared_unless_the_launcher_did(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(machine, "available_cores", lambda: 8)
    assert [machine.share_of_cores(processes) for processes in (1, 4, 16)] == [8, 2, 1]
    monkeypatch.setattr(machine, "available_cores", lambda: 2)
    assert machine.share_of_cores(4) == 2
