"""Worker processes that compute batches ahead, by Grain, for every backend."""

import contextlib
import importlib.util
import itertools
import mmap
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import warnings
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import connection, parent_process
from types import ModuleType
from typing import Any

import numpy as np

from keras_robust.data.host_batches import HostBatches

WORKER_MAIN = "keras_robust.data.worker_main"
AHEAD = 1  # batches that a worker has ready while it computes the next
DESCRIPTORS = "/proc/self/fd"  # where Linux shows a process's files
SHARED_MEMORY = "/dev/shm"  # where Linux has it
LOOKS_EVERY = 1.0  # seconds between a worker's looks at whether the program is alive


class Workers:
    """Batches by their number, computed ahead by worker processes: step s by worker s modulo their number.

    The processes are started by the first batch that is asked for, and go on until `close` or the end of the program.
    They import neither Keras nor a framework, and not the program that started them. Asked for the steps in turn,
    batches are ready; any other step is one that the workers go on from.

    Args:
        batches: what they compute; travels to them by pickle.
        count: number of processes.

    Raises:
        ImportError: Grain is not installed.
        ValueError: from `batch`, where a source cannot be pickled.
    """

    def __init__(self, batches: HostBatches, count: int) -> None:
        if importlib.util.find_spec("grain") is None:
            raise ImportError(
                "Worker processes are Grain's: pip install 'keras-robust[images]'. Without them: workers=0."
            )
        self._batches, self._count = batches, count
        self._iterators: list[Any] = []
        self._next_step = 0
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._iterators)

    def batch(self, step: int) -> dict[str, Any]:
        """Batch number `step`; an error of a worker is raised here, and ends all of them."""
        with self._lock:
            try:
                if not self._iterators:
                    self._start(step)
                elif step != self._next_step:
                    self._go_to(step)
                batch = next(self._iterators[step % self._count])
                batch = {name: value if name == "skipped" else _plain(value) for name, value in batch.items()}
            except BaseException:
                _close(self._iterators)
                raise
            self._next_step = step + 1
            return batch

    def close(self) -> None:
        """Ends the processes; the next batch that is asked for starts new ones."""
        with self._lock, ThreadPoolExecutor(self._count) as pool:  # each is waited for until its batch is done
            for _ in pool.map(lambda iterator: iterator.close(), self._iterators):
                pass
            self._iterators.clear()

    def _start(self, step: int) -> None:
        import grain
        from absl import flags
        from grain._src.python.dataset.transformations.process_prefetch import ProcessPrefetchIterDataset

        # Grain reads its flags without a look at whether a program has parsed any, as most have not.
        for name in {"grain_enable_multiprocess_worker_profiling"} & {*flags.FLAGS}:
            flags.FLAGS[name].present = 1
        alone, fits = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0), self._fits_shared_memory()
        packed = grain.MapDataset.source(Packed(self._batches))
        for number in range(self._count):
            steps = packed[number :: self._count].to_iter_dataset(alone)
            if not fits:
                pipes = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
                steps = grain.experimental.WithOptionsIterDataset(steps, pipes)
            self._iterators.append(iter(ProcessPrefetchIterDataset(steps, AHEAD, worker_init_fn=end_with_parent)))
        self._go_to(step)
        with _bare_main(), _signals_held():
            for iterator in self._iterators:
                iterator.start_prefetch()

    def _fits_shared_memory(self) -> bool:
        """Whether the batches under way do; a process that finds too little of it is killed by the system."""
        if not os.path.isdir(SHARED_MEMORY):
            return True
        free = shutil.disk_usage(SHARED_MEMORY).free
        wanted = self._count * (AHEAD + 3) * sum(array.nbytes for array in self._batches.example())
        if free < wanted:
            warnings.warn(
                f"{SHARED_MEMORY} has {free / 2**20:.0f} MiB free, and batches of {self._count} workers may take "
                f"{wanted / 2**20:.0f}: they go through pipes, more slowly. docker run has --shm-size for it.",
                stacklevel=4,
            )
        return free >= wanted

    def _go_to(self, step: int) -> None:
        """Makes each worker go on from the first of its steps that is not before `step`."""
        import grain

        for number, iterator in enumerate(self._iterators):
            grain.experimental.set_next_index(iterator, -(-(step - number) // self._count))


class Packed:
    """Batches pickled once for all workers, for the names of a million files take a second, and unpacked by each.

    Arrays, such as the images of a source in memory, lie in one file beside it, which all workers look at.
    """

    def __init__(self, batches: HostBatches) -> None:
        import cloudpickle  # with Grain; takes classes of the program's main module along

        arrays: list[pickle.PickleBuffer] = []
        try:
            self._content = cloudpickle.dumps(batches, protocol=5, buffer_callback=arrays.append)
            self._length = len(batches)
        except Exception as error:  # whatever a class raises that holds a lock, a connection, a handle
            raise ValueError(
                f"source must be fit for pickle, by which it travels to worker processes: {error}. "
                "Give its class __getstate__ and __setstate__ that open files anew, or take workers=0."
            ) from error
        self._sizes = [array.raw().nbytes for array in arrays]
        self._file = _Shared(arrays)
        self._batches: HostBatches | None = None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, step: int) -> dict[str, Any]:
        if self._batches is None:
            self._batches = pickle.loads(self._content, buffers=self._file.parts(self._sizes))
            self._content = b""
        try:
            return self._batches[step]
        except Exception as error:
            if type(error) is ValueError and all(isinstance(part, str) for part in error.args):
                raise
            # One that cannot be pickled would never arrive, and the program would wait for it for ever.
            raise RuntimeError(f"{type(error).__name__}: {error}") from None


class _Shared:
    """A file of arrays that other processes look at, as long as the one that wrote it holds it."""

    def __init__(self, arrays: list[pickle.PickleBuffer]) -> None:
        nameless = os.path.isdir(DESCRIPTORS)  # nothing is left of such a file, however the program ends
        held = tempfile.TemporaryFile() if nameless else tempfile.NamedTemporaryFile()  # noqa: SIM115 (held)
        weakref.finalize(self, held.close)
        for array in arrays:
            held.write(array.raw())
        held.flush()
        self._path = f"/proc/{os.getpid()}/fd/{held.fileno()}" if nameless else held.name

    def __getstate__(self) -> dict[str, str]:
        return {"_path": self._path}

    def parts(self, sizes: list[int]) -> list[memoryview]:
        """The arrays' contents, read-only."""
        ends = list(itertools.accumulate(sizes))
        if not ends or not ends[-1]:
            return [memoryview(b"") for _ in sizes]
        with open(self._path, "rb") as file:
            pages = memoryview(mmap.mmap(file.fileno(), ends[-1], access=mmap.ACCESS_READ))
        return [pages[end - size : end] for end, size in zip(ends, sizes)]


def _plain(array: np.ndarray) -> np.ndarray:
    """An array of Grain's in shared memory as one of numpy's, and without its name in the system.

    Grain's own gives its memory back in Python, which fails with a traceback for one that lives at the program's end.
    """
    memory = getattr(array, "shm", None)
    if memory is None:  # it came through a pipe
        return array
    if not os.path.isdir(SHARED_MEMORY):
        return np.array(array)
    with open(os.path.join(SHARED_MEMORY, memory.name), "r+b") as file:
        pages = mmap.mmap(file.fileno(), array.nbytes)
    return np.frombuffer(pages, array.dtype).reshape(array.shape)


def end_with_parent() -> None:
    """Ends this process when its parent has ended, in whichever way: killed, or by `os._exit`, which tells nobody."""
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    process = parent_process()
    # The pipe tells at once; but programs that the parent has forked hold it open.
    ends = [process.sentinel] if process is not None else []
    while os.getppid() == parent:
        if connection.wait(ends, LOOKS_EVERY):
            break
    os._exit(1)


def _close(iterators: list[Any]) -> None:
    while iterators:
        iterators.pop().close()


@contextlib.contextmanager
def _bare_main() -> Iterator[None]:
    """Has `multiprocessing` run `WORKER_MAIN` in new processes, rather than the main module of this program again.

    That would bring Keras and a framework into all of them, and would end in an error in a script that has no
    `if __name__ == "__main__"`.
    """
    main = sys.modules["__main__"]
    bare = ModuleType("__main__")
    bare.__spec__ = importlib.util.find_spec(WORKER_MAIN)
    sys.modules["__main__"] = bare
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Has new processes begin with Ctrl-C and SIGTERM blocked, until they have said that they ignore them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
