"""Starting programs that train together, without leaving any behind."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCHERS = ("SLURM_", "KERAS_DISTRIBUTION_", "TF_CONFIG", "RANK", "WORLD_SIZE")
TIMEOUT = 400  # seconds; a run takes less than a minute of one core


def free_ports(count):
    """Ports of this machine that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def cluster(backend, count):
    """The variables that tell `count` processes of one another, a dict for each."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    if count == 1:
        return [{}]
    if backend == "torch":
        host, port = addresses[0].split(":")
        common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": host, "MASTER_PORT": port}
        return [{**common, "RANK": str(i), "LOCAL_RANK": str(i)} for i in range(count)]
    if backend == "jax":
        first = {"KERAS_DISTRIBUTION_JOB_ADDRESSES": addresses[0], "KERAS_DISTRIBUTION_NUM_PROCESSES": str(count)}
        return [{**first, "KERAS_DISTRIBUTION_PROCESS_ID": str(i)} for i in range(count)]
    jobs = {"worker": addresses}
    return [{"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": "worker", "index": i}})} for i in range(count)]


def run_together(commands, may_fail=False):
    """Runs (arguments, extra environment) pairs at the same time; each a new process group, killed at the end.

    Returns their outputs and exit statuses; raises an AssertionError with the outputs where one fails that may not.
    """
    base = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHERS)}
    base.update(PYTHONPATH=str(ROOT), PYTHONWARNINGS="ignore", CUDA_VISIBLE_DEVICES="-1")
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT}
    started = [
        subprocess.Popen([sys.executable, *arguments], env={**base, **extra}, start_new_session=True, **options)
        for arguments, extra in commands
    ]
    try:
        outputs = [process.communicate(timeout=TIMEOUT)[0] for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    statuses = [process.returncode for process in started]
    assert may_fail or not any(statuses), "\n".join(output[-2000:] for output in outputs)
    return outputs, statuses
