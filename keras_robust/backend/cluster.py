"""Cluster of processes that train together, from the variables that torchrun, SLURM, TensorFlow and Keras know."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any


@dataclass(frozen=True)
class Cluster:
    """The addresses ("host:port") of all processes in order, and the place of this one among them.

    Attributes:
        addresses: of each process; where they meet at that of the first, the others may be the same.
        index: of this process.
        local: its place among those of its host, and how many these are, as far as the launcher says it.
    """

    addresses: tuple[str, ...]
    index: int
    local: tuple[int, int] = (0, 1)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The host of each process; that of the first where all have its address. An IPv6 address has no brackets."""
        return tuple(address.rpartition(":")[0].strip("[]") for address in self.addresses)

    @property
    def distinct(self) -> bool:
        """Whether each process has an address of its own, rather than all that of the first."""
        return len({*self.addresses}) == len(self.addresses)

    def __post_init__(self) -> None:
        if not 0 <= self.index < len(self.addresses):
            raise ValueError(
                f"the index of this process must lie in [0, {len(self.addresses) - 1}] for {len(self.addresses)} "
                f"processes; received {self.index}."
            )


def from_tf_config() -> Any:
    """The cluster in TF_CONFIG, or None. Tasks are of type "chief" (at most one, then the first) and "worker".

    Raises:
        ValueError: TF_CONFIG is not of that form.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        config = json.loads(text)
        jobs, kind, index = config["cluster"], config["task"]["type"], int(config["task"]["index"])
        chief, workers = list(jobs.get("chief", ())), list(jobs.get("worker", ()))
        position = {"chief": index, "worker": len(chief) + index}[kind]
        return _placed(Cluster((*chief, *workers), position))
    except (KeyError, TypeError, ValueError) as error:
        example = '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, "task": {"type": "worker", "index": 0}}'
        raise ValueError(f"TF_CONFIG must be JSON such as {example}; received {text!r} ({error}).") from error


def from_keras() -> Any:
    """The cluster in Keras' own variables KERAS_DISTRIBUTION_{JOB_ADDRESSES,NUM_PROCESSES,PROCESS_ID}, or None.

    One address, of process 0, is enough.

    Raises:
        ValueError: one of the variables is missing or they contradict one another.
    """
    names = [f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")]
    values = [os.environ.get(name) for name in names]
    if not any(values):
        return None
    try:
        addresses, count, index = str(values[0] or "").split(","), int(values[1] or ""), int(values[2] or "")
        if not all(re.fullmatch(r".+:\d+", address) for address in addresses) or len(addresses) not in (1, count):
            raise ValueError("one address, or one for each process")
        return _placed(Cluster(tuple(addresses) if len(addresses) == count else tuple(addresses * count), index))
    except ValueError as error:
        received = ", ".join(f"{name}={value!r}" for name, value in zip(names, values))
        raise ValueError(
            f"{names[0]} must be the 'host:port' of process 0, {names[1]} how many processes there are and {names[2]} "
            f"which one this is; received {received} ({error})."
        ) from error


def from_torchrun() -> Any:
    """The cluster in the variables of torchrun (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, LOCAL_RANK, ...), or None.

    Without any LOCAL_ variable a process is the only one of its host, as Kubernetes starts one in each container.

    Raises:
        ValueError: one of the variables is missing or malformed.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    try:
        index, count = (int(os.environ[name]) for name in names[:2])
        alone = not any(name in os.environ for name in names[4:])
        local, neighbours = (0, 1) if alone else (int(os.environ[name]) for name in names[4:])
        address = f"{os.environ['MASTER_ADDR']}:{int(os.environ['MASTER_PORT'])}"
        return Cluster((address,) * count, index, (local, neighbours))
    except (KeyError, ValueError) as error:
        received = ", ".join(f"{name}={os.environ.get(name)!r}" for name in names)
        raise ValueError(f"cannot read what torchrun says of its processes from {received}: {error}.") from error


def from_slurm(share_gpus: bool = True) -> Any:
    """The cluster of a SLURM job step (`srun`) of several tasks, or None.

    Args:
        share_gpus: whether each of several tasks that see the same GPUs takes its share of them
            (CUDA_VISIBLE_DEVICES): this must then run before a GPU is first used.

    Raises:
        ValueError: a variable that srun sets is missing or malformed.
    """
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) <= 1:
        return None
    try:
        hosts = _hosts(os.environ["SLURM_STEP_NODELIST"])
        tasks = _repeated(os.environ["SLURM_STEP_TASKS_PER_NODE"])
        index, local = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_LOCALID"])
        job = int(os.environ["SLURM_JOB_ID"])
        if len(hosts) != len(tasks):
            raise ValueError(f"{len(hosts)} nodes, but task counts of {len(tasks)}")
    except (KeyError, ValueError) as error:
        received = {name: value for name, value in os.environ.items() if name.startswith("SLURM_STEP")}
        raise ValueError(f"cannot read the SLURM step from {received}: {error}. Start with srun.") from error
    neighbours = tasks[hosts.index(_host_of(index, hosts, tasks))]
    if share_gpus:
        _share_gpus(local, neighbours)
    # Jobs that share a node must not meet at one port.
    first = 20000 + 16 * (job % 1000)
    addresses = [f"{host}:{first + i}" for host, count in zip(hosts, tasks) for i in range(count)]
    return Cluster(tuple(addresses), index, (local, neighbours))


def local_processes() -> int:
    """Processes of this training on this host, as far as torchrun, srun, MPI or TF_CONFIG say it; else 1.

    What a launcher left out or malformed is 1, too: training in several processes refuses it, and one alone needs none.
    """
    for name in ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"):
        if os.environ.get(name, "").isdecimal():
            return max(int(os.environ[name]), 1)
    try:
        found = from_torchrun() or from_slurm(share_gpus=False) or from_tf_config() or from_keras()
    except ValueError:
        return 1
    return 1 if found is None else found.local[1]


def _placed(cluster: Cluster) -> Cluster:
    """The same cluster with the place among those of its host, from the addresses where these tell hosts apart."""
    if not cluster.distinct:
        return cluster
    host = cluster.hosts[cluster.index]
    return replace(cluster, local=(cluster.hosts[: cluster.index].count(host), cluster.hosts.count(host)))


def _host_of(index: Any, hosts: Any, tasks: Any) -> Any:
    return [host for host, count in zip(hosts, tasks) for _ in range(count)][index]


def _hosts(text: Any) -> Any:
    """The host names in SLURM's notation: "gpu[01-03,7],login" names gpu01, gpu02, gpu03, gpu7 and login."""
    if not re.fullmatch(r"(?:[\w.-]+|\[[\d,-]+\]|,(?=.))+", text):
        raise ValueError(f"malformed list of nodes {text!r}")
    names = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        expanded = [""]
        for literal, ranges in re.findall(r"([^\[\]]+)|\[([^\]]*)\]", part):
            expanded = [head + tail for head in expanded for tail in (_numbers(ranges) if ranges else [literal])]
        names += expanded
    return names


def _numbers(ranges: Any) -> Iterator[Any]:
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        yield from (str(n).zfill(len(first)) for n in range(int(first), int(last or first) + 1))


def _repeated(text: Any) -> Any:
    """SLURM's counts "2(x3),1" as [2, 2, 2, 1]."""
    counts = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise ValueError(f"malformed counts of tasks {text!r}")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


@cache  # for the share is not to be shared again, however often the cluster is asked for
def _share_gpus(local: Any, tasks: Any) -> None:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    share = len(visible) // tasks
    if tasks > 1 and len(visible) > 1 and share:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible[local * share : (local + 1) * share])
