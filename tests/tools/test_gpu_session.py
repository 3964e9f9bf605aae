"""tools/gpu_session.py: pieces that end in time, and the table of what they wrote."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import scripts

pytestmark = pytest.mark.once
VARIANT = {"cpu_seconds": [0.0], "build_seconds": 30.0, "details": {}}


@pytest.fixture
def session():
    return scripts.load("tools/gpu_session.py")


def record():
    """A step of 80 images of 10^9 multiply-adds, in 16 ms and in 32, on a card of 989.4 TFLOP/s."""
    ours = {"multiply_adds": 10**9, "passes": 8, "device": "NVIDIA H100 80GB HBM3"}
    variants = {
        "jax": {**VARIANT, "seconds": [0.016, 0.015, 0.5], "peak_memory": 9000.0, "details": ours},
        "plain nhwc": {**VARIANT, "seconds": [0.032], "peak_memory": 12000.0, "details": {**ours, "passes": 8}},
    }
    result = {"model": "net", "batch": 80, "variants": variants, "ratios": {}, "missing": {"torch": "too slow"}}
    return {"pieces": {"step-net-80": {"result": {"results": result}}, "kernels-jax": {"ended": "stopped after 3 s"}}}


def test_the_table(session):
    table = session.tables(record())
    # 80 images in 16 ms; 2 x 8 x 80 x 10^9 operations in 16 ms are 80 TFLOP/s, 8 % of 989.
    assert "| net, 80 | jax | 5,000 | 16.0 | 80.0 | 8% | 2.00 | 9,000 | 30 |" in table
    assert "| net, 80 | plain nhwc | 2,500 | 32.0 | 40.0 | 4% | 1.00 | 12,000 | 30 |" in table
    assert "torch: too slow" in table
    assert "Without a result: kernels-jax: stopped after 3 s" in table


def test_the_largest_batch_fills_nine_tenths_of_the_card(session, monkeypatch):
    monkeypatch.setattr(session, "memory_of_card", lambda: 80000.0)
    assert session.largest_batch(record()["pieces"]["step-net-80"]["result"]) == 640  # 8.0 times 9,000 are 72,000
    assert session.largest_batch(None) is None


def test_a_piece_ends_in_time_with_all_that_it_started(session, tmp_path, monkeypatch):
    (tmp_path / "slow.py").write_text(
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "pathlib.Path(sys.argv[2]).write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(session, "TOOLS", tmp_path)
    start = time.monotonic()
    done = session.run(session.Piece("slow", ("slow.py",), 5), 5, tmp_path, tmp_path / "log", dict(os.environ))
    assert time.monotonic() - start < 30
    assert done["ended"] == "stopped after 5 s"
    child = Path(f"/proc/{done['result']}/stat")  # what was written before it was stopped
    while child.exists() and child.read_text().split()[2] != "Z":
        assert time.monotonic() - start < 30


def test_what_is_left_of_the_time_is_shared_out(session, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "plan", lambda results: iter([session.Piece("late", ("none.py",), 60)]))
    session.main(["--out", str(tmp_path), "--seconds", "5"])
    assert json.loads((tmp_path / "gpu.json").read_text()) == {"pieces": {"late": {"ended": "no time was left"}}}


def test_needs_no_package():
    done = subprocess.run(
        [sys.executable, "-I", "-S", scripts.ROOT / "tools/gpu_session.py", "--help"], capture_output=True
    )
    assert done.returncode == 0
