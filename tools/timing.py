"""Time variants of one piece of work against each other.

Each variant runs in a process of its own and the processes take turns, one step at a time, so that what else the
machine does falls on all of them alike. On the CPU, or on a GPU,
where a step may be many that run to their end together.

    def build_fast(settings):          # runs in the worker: imports, builds, returns a function that does one step
        ...
        return step

    times, missing = measure({"fast": build_fast, "slow": build_slow}, settings, repeats=20)
    print(table(times, [("fast", "slow")]))
"""

import argparse
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

WARM_UP_STEPS = 2
# Longer than the 200 ms for which the threads of some OpenMP runtimes keep spinning after the last piece of work.
PAUSE_SECONDS = 0.25
PATIENCE_SECONDS = 30


class Unavailable(Exception):
    """Raised by a variant that cannot run here, with the reason; the others go on."""


@dataclass(frozen=True)
class Step:
    """What a variant may build instead of a plain function, of whose results nothing is taken (they may be losses).

    Attributes:
        run: one step, run to its end; it returns the seconds that count.
        details: called at the end, a dict of what else is known of the variant; `peak_memory`, MiB, is the device's.
    """

    run: Callable[[], float]
    details: Callable = dict


@dataclass(frozen=True)
class Times:
    """Of one variant: seconds and CPU seconds (of all threads) of each step, peak memory in MiB, seconds to build."""

    seconds: list[float]
    cpu_seconds: list[float]
    peak_memory: float
    build_seconds: float = 0.0
    details: dict = field(default_factory=dict)


def measure(
    variants, settings, repeats, threads=None, progress=lambda message: None, device="cpu", lane=None, build_limit=None
):
    """Run every variant `repeats` times, in turn.

    Args:
        variants: dict from name to a function at the top of a module that takes `settings` and returns a function
            without arguments, or a `Step`: one step, run to its end. It may raise `Unavailable`, or ValueError for
            settings that do not go together.
        settings: anything that can be pickled.
        repeats: steps per variant, after two to warm up.
        threads: cores that a step may use (Linux only); None for all that this process may.
        progress: called with a line of text now and then.
        device: "cpu", which hides all others, or "gpu"; there a variant that dies, of too little memory for one, is
            left out like one that cannot run.
        lane: None or a function from the name of a variant to its lane: lanes are built side by side, for what compiles
            on the CPU, and the variants of one in turn.
        build_limit: seconds after which what is not built is left out.

    Returns:
        `Times` of the variants that can run here, by name, and why the others cannot.

    Raises:
        ValueError: from a variant.
        RuntimeError: a worker died.
    """
    context = multiprocessing.get_context("spawn")
    workers, missing, built, begun = {}, {}, {}, {}
    lanes = {}
    for variant in variants:
        lanes.setdefault(lane(variant) if lane else None, []).append(variant)
    end = None if build_limit is None else time.monotonic() + build_limit

    def begin(waiting):
        if waiting:
            variant = waiting.pop(0)
            progress(f"{variant}: building and compiling")
            here, there = context.Pipe()
            # No daemon, which may have no worker processes of its own.
            process = context.Process(target=_work, args=(there, variants[variant], settings, threads, device))
            process.start()
            # Else a worker's death would not close the pipe.
            there.close()
            begun[here] = variant, waiting, process, time.monotonic()

    try:
        for waiting in lanes.values():
            begin(waiting)
        while begun:
            left = None if end is None else max(end - time.monotonic(), 0)
            ready = multiprocessing.connection.wait(list(begun), left)
            if not ready:
                for variant, waiting, process, _ in begun.values():
                    process.kill()
                    missing |= dict.fromkeys((variant, *waiting), f"not built within {build_limit:.0f} s")
                break
            for connection in ready:
                variant, waiting, _, start = begun.pop(connection)
                try:
                    status, message = _receive(connection, variant)
                except RuntimeError as error:
                    if device == "cpu":
                        raise
                    status, message = "unavailable", str(error)
                if status == "refused" and device == "cpu":
                    raise ValueError(message)
                if status != "ready":
                    missing[variant] = message
                else:
                    workers[variant], built[variant] = connection, time.monotonic() - start
                begin(waiting)
        workers = {variant: workers[variant] for variant in variants if variant in workers}
        rounds = {variant: [] for variant in workers}
        for i in range(repeats):
            for variant, connection in workers.items():
                if device == "cpu":
                    time.sleep(PAUSE_SECONDS)
                connection.send(True)
                rounds[variant].append(_receive(connection, variant))
            last = ", ".join(f"{variant} {steps[-1][0]:.3f} s" for variant, steps in rounds.items())
            progress(f"round {i + 1} of {repeats}: {last}")
        times = {}
        for variant, connection in workers.items():
            connection.send(False)
            seconds, cpu_seconds = zip(*rounds[variant])
            memory, details = _receive(connection, variant)
            memory = details.pop("peak_memory", memory)
            times[variant] = Times(list(seconds), list(cpu_seconds), memory, built[variant], details)
        for process in multiprocessing.active_children():
            process.join(PATIENCE_SECONDS)  # it ends by itself, and its own processes with it
        return times, missing
    finally:
        for process in multiprocessing.active_children():
            process.terminate()


def _work(connection, build, settings, threads, device):
    """A worker: builds its step, then runs one whenever it is told to, until it is told to stop."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ["JAX_PLATFORMS"] = "cpu"
    else:
        # JAX would take three quarters of the memory, which the processes share.
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if threads is not None:
        # Before a framework counts the cores: all three take as many threads as they find.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    try:
        step = build(settings)
        step = step if isinstance(step, Step) else Step(partial(_seconds, step))
        for _ in range(WARM_UP_STEPS):
            step.run()
    except Unavailable as reason:
        connection.send(("unavailable", str(reason)))
        return
    except ValueError as error:
        connection.send(("refused", str(error).splitlines()[0]))
        return
    except Exception as error:
        if device == "cpu":
            raise
        connection.send(("unavailable", f"{type(error).__name__}: {str(error)[:300]}"))
        return
    _forget_peak_memory()
    connection.send(("ready", None))
    while connection.recv():
        cpu_start = time.process_time()
        seconds = step.run()
        connection.send((seconds, time.process_time() - cpu_start))
    connection.send((_peak_memory(), step.details()))


def _seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _receive(connection, variant):
    try:
        return connection.recv()
    except EOFError:
        raise RuntimeError(f"the process of {variant!r} died (see above)") from None


def available_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _forget_peak_memory():
    """Start a new peak, without what building and compiling took; Linux only, elsewhere it stays in."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory():
    """The most memory that this process has held at a time, in MiB."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 1024
    except OSError:
        import resource

        unit = 1024**2 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def ratios(times, pairs):
    """For each of the pairs of names that was measured: ratio of the median times, its quartiles over the rounds,
    ratios of the fastest steps and of peak memory."""
    result = {}
    for one, other in pairs:
        if one in times and other in times:
            low, high = quartiles([a / b for a, b in zip(times[one].seconds, times[other].seconds)])
            result[f"{one} / {other}"] = {
                "median": statistics.median(times[one].seconds) / statistics.median(times[other].seconds),
                "lower_quartile": low,
                "upper_quartile": high,
                "fastest": min(times[one].seconds) / min(times[other].seconds),
                "peak_memory": times[one].peak_memory / times[other].peak_memory,
            }
    return result


def quartiles(values):
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def table(times, pairs):
    """Times and ratios as text."""
    lines = [f"{'step':<16}{'median':>9}{'middle half':>18}{'fastest':>10}{'CPU time':>11}{'peak memory':>14}"]
    for variant, measured in times.items():
        low, high = quartiles(measured.seconds)
        lines.append(
            f"{variant:<16}{statistics.median(measured.seconds):>7.3f} s{f'{low:.3f} - {high:.3f} s':>18}"
            f"{min(measured.seconds):>8.3f} s{statistics.median(measured.cpu_seconds):>9.3f} s"
            f"{measured.peak_memory:>10.0f} MiB"
        )
    found = ratios(times, pairs)
    if found:
        lines += ["", f"{'ratio':<28}{'of medians':>12}{'middle half':>16}{'of fastest':>12}{'of peak memory':>16}"]
    for pair, ratio in found.items():
        middle = f"{ratio['lower_quartile']:.2f} - {ratio['upper_quartile']:.2f}"
        lines.append(
            f"{pair:<28}{ratio['median']:>12.2f}{middle:>16}{ratio['fastest']:>12.2f}{ratio['peak_memory']:>16.2f}"
        )
    return "\n".join(lines)


def environment(packages, threads):
    """Versions of packages (None: not installed), the machine and the number of threads, to go with the times."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "versions": versions,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "threads": threads or available_cores(),
    }


class Parser(argparse.ArgumentParser):
    """The options that every benchmark has; errors on one line, exit status 2."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)
        self.add_argument("--repeats", type=positive, default=20, help="steps per variant (%(default)s)")
        self.add_argument(
            "--threads", type=positive, help="cores that a step may use, Linux only (default: all that this may)"
        )
        self.add_argument(
            "--backend", choices=("tensorflow", "jax", "torch"), default="tensorflow", help="of Keras (%(default)s)"
        )
        self.add_argument("--json", type=Path, metavar="OUT", help="file for every single time, besides the table")

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}\n")

    def parse_args(self, *arguments):
        options = super().parse_args(*arguments)
        if options.threads is not None:
            if not hasattr(os, "sched_setaffinity"):
                self.error("argument --threads: cores can be chosen on Linux only")
            if options.threads > available_cores():
                self.error(f"argument --threads: {options.threads} asked for, {available_cores()} available")
        if options.json is not None and not options.json.absolute().parent.is_dir():
            self.error(f"argument --json: there is no folder {options.json.absolute().parent}")
        return options


def positive(text):
    value = int(text)
    if value < 1:
        raise ValueError
    return value


positive.__name__ = "positive integer"
