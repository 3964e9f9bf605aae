"""Time a training step: clean, adversarial, and the same adversarial step written in plain PyTorch.

Each variant runs in a process of its own and the processes take turns, one step at a time, so that what else the
machine does falls on all of them alike. On the CPU.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

EXAMPLES = """\
examples:
  python tools/benchmark.py
  python tools/benchmark.py --model vit_small_convstem --resolution 64 --batch 16
  python tools/benchmark.py --model convnext_atto_convstem --resolution 32 --batch 64 --repeats 50 --json atto.json
  python tools/benchmark.py --backend torch --n-iter 3

Counting passes through the network, a clean step costs 3 (one forward, two backward), a step with n attack iterations
2 n + 4: with n = 2 the ratio is 8 / 3 = 2.67. The optimizer's part, the same in both, makes the measured ratio smaller.
"""
EPS = 4 / 255
NUM_CLASSES = 1000
WARM_UP_STEPS = 2
# Longer than the 200 ms for which the threads of some OpenMP runtimes keep spinning after the last piece of work.
PAUSE_SECONDS = 0.25


@dataclass(frozen=True)
class Settings:
    """What is timed; `backend` is that of Keras."""

    model: str
    resolution: int
    batch: int
    n_iter: int
    backend: str


class Unavailable(Exception):
    """A variant that cannot run here, and why; the others go on."""


def images_and_labels(settings):
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.random((settings.batch, settings.resolution, settings.resolution, 3), dtype="float32")
    return x, rng.integers(0, NUM_CLASSES, settings.batch).astype("int32")


def keras_step(settings, adversarial):
    os.environ["KERAS_BACKEND"] = settings.backend
    import keras

    import keras_robust as kr

    keras.utils.set_random_seed(0)
    model = kr.models.create(settings.model, num_classes=NUM_CLASSES, input_size=settings.resolution)
    if adversarial:
        model = kr.AdversarialModel(model, kr.attacks.APGD(kr.ThreatModel("Linf", EPS), n_iter=settings.n_iter))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3, weight_decay=0.05), loss)
    x, y = images_and_labels(settings)
    return lambda: model.train_on_batch(x, y)


def pytorch_step(settings):
    try:
        import torch
    except ImportError:
        raise Unavailable("PyTorch is not installed") from None
    os.environ["KERAS_BACKEND"] = "torch"
    import plain_pytorch

    from keras_robust.models.registry import architecture

    torch.manual_seed(0)
    torch.set_num_threads(_available_cores())
    model = plain_pytorch.create(architecture(settings.model), NUM_CLASSES, settings.resolution)
    if model is None:
        raise Unavailable(f"tools/plain_pytorch.py has no {settings.model}")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    x, y = images_and_labels(settings)
    # Channels-last in memory, as it is.
    x, y = torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(y).long()
    return lambda: plain_pytorch.training_step(model, optimizer, x, y, EPS, settings.n_iter)


# Each builds, in its own process, a function without arguments that runs one step to its end.
TRAINING = {
    "clean": lambda settings: keras_step(settings, adversarial=False),
    "adversarial": lambda settings: keras_step(settings, adversarial=True),
    "pytorch": pytorch_step,
}
RATIOS = (("adversarial", "clean"), ("adversarial", "pytorch"))


def work(connection, variant, settings, threads):
    """A worker: builds its step, then runs one whenever it is told to, until it is told to stop."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["JAX_PLATFORMS"] = "cpu"
    if threads is not None:
        # Before a framework counts the cores: all three take as many threads as they find.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    try:
        step = TRAINING[variant](settings)
        for _ in range(WARM_UP_STEPS):
            step()
    except Unavailable as reason:
        connection.send(("unavailable", str(reason)))
        return
    except ValueError as error:
        connection.send(("refused", str(error).splitlines()[0]))
        return
    forget_peak_memory()
    connection.send(("ready", None))
    while connection.recv():
        start, cpu_start = time.perf_counter(), time.process_time()
        step()
        connection.send((time.perf_counter() - start, time.process_time() - cpu_start))
    connection.send(peak_memory())


def _available_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def forget_peak_memory():
    """Start a new peak, without what building and compiling took; Linux only, elsewhere it stays in."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory():
    """The most memory that this process has held at a time, in MiB."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 1024
    except OSError:
        import resource

        unit = 1024**2 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


@dataclass(frozen=True)
class Times:
    """Of one variant: seconds and CPU seconds (of all threads) of each step, and peak memory in MiB."""

    seconds: list[float]
    cpu_seconds: list[float]
    peak_memory: float


def measure(settings, repeats, threads, progress):
    """Times of the variants that can run here, by name, and why the others cannot.

    Raises:
        ValueError: the settings do not go together, e.g. there is no such model.
        RuntimeError: a worker died.
    """
    context = multiprocessing.get_context("spawn")
    workers, missing = {}, {}
    try:
        for variant in TRAINING:
            progress(f"{variant}: building and compiling")
            here, there = context.Pipe()
            process = context.Process(target=work, args=(there, variant, settings, threads), daemon=True)
            process.start()
            # Else a worker's death would not close the pipe.
            there.close()
            status, message = _receive(here, variant)
            if status == "refused":
                raise ValueError(message)
            if status == "unavailable":
                missing[variant] = message
            else:
                workers[variant] = here
        rounds = {variant: [] for variant in workers}
        for i in range(repeats):
            for variant, connection in workers.items():
                time.sleep(PAUSE_SECONDS)
                connection.send(True)
                rounds[variant].append(_receive(connection, variant))
            last = ", ".join(f"{variant} {steps[-1][0]:.3f} s" for variant, steps in rounds.items())
            progress(f"round {i + 1} of {repeats}: {last}")
        times = {}
        for variant, connection in workers.items():
            connection.send(False)
            seconds, cpu_seconds = zip(*rounds[variant])
            times[variant] = Times(list(seconds), list(cpu_seconds), _receive(connection, variant))
        return times, missing
    finally:
        for process in multiprocessing.active_children():
            process.terminate()


def _receive(connection, variant):
    try:
        return connection.recv()
    except EOFError:
        raise RuntimeError(f"the process of {variant!r} died (see above)") from None


def ratios(times):
    """For each pair of `RATIOS` that was measured: ratio of the median times, its quartiles over the rounds, memory."""
    result = {}
    for one, other in RATIOS:
        if one in times and other in times:
            by_round = [a / b for a, b in zip(times[one].seconds, times[other].seconds)]
            low, high = quartiles(by_round)
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


def table(times):
    lines = [f"{'step':<14}{'median':>9}{'middle half':>18}{'fastest':>10}{'CPU time':>11}{'peak memory':>14}"]
    for variant, measured in times.items():
        low, high = quartiles(measured.seconds)
        lines.append(
            f"{variant:<14}{statistics.median(measured.seconds):>7.3f} s{f'{low:.3f} - {high:.3f} s':>18}"
            f"{min(measured.seconds):>8.3f} s{statistics.median(measured.cpu_seconds):>9.3f} s"
            f"{measured.peak_memory:>10.0f} MiB"
        )
    lines += ["", f"{'ratio':<26}{'of medians':>12}{'middle half':>16}{'of fastest':>12}{'of peak memory':>16}"]
    for pair, ratio in ratios(times).items():
        middle = f"{ratio['lower_quartile']:.2f} - {ratio['upper_quartile']:.2f}"
        lines.append(
            f"{pair:<26}{ratio['median']:>12.2f}{middle:>16}{ratio['fastest']:>12.2f}{ratio['peak_memory']:>16.2f}"
        )
    return "\n".join(lines)


def environment(settings, threads):
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("keras", settings.backend, "torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "versions": versions,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "threads": threads or _available_cores(),
    }


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: {message}\n")


def positive(text):
    value = int(text)
    if value < 1:
        raise ValueError
    return value


positive.__name__ = "positive integer"


def parse(arguments):
    parser = Parser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="convnext_tiny_convstem", help="a name of kr.models.names() (%(default)s)")
    parser.add_argument("--resolution", type=positive, default=64, help="side of the images, pixels (%(default)s)")
    parser.add_argument("--batch", type=positive, default=16, help="images per step (%(default)s)")
    parser.add_argument("--n-iter", type=positive, default=2, help="iterations of the attack (%(default)s)")
    parser.add_argument("--repeats", type=positive, default=20, help="steps per variant (%(default)s)")
    parser.add_argument(
        "--threads", type=positive, help="cores that a step may use, Linux only (default: all that this process may)"
    )
    parser.add_argument(
        "--backend", choices=("tensorflow", "jax", "torch"), default="tensorflow", help="of Keras (%(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="file for every single time, besides the table")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        if not hasattr(os, "sched_setaffinity"):
            parser.error("argument --threads: cores can be chosen on Linux only")
        if options.threads > _available_cores():
            parser.error(f"argument --threads: {options.threads} asked for, {_available_cores()} available")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        parser.error(f"argument --json: there is no folder {options.json.absolute().parent}")
    return parser, options


def main(arguments=None):
    parser, options = parse(arguments)
    settings = Settings(options.model, options.resolution, options.batch, options.n_iter, options.backend)
    try:
        times, missing = measure(
            settings, options.repeats, options.threads, lambda message: print(message, file=sys.stderr, flush=True)
        )
    except ValueError as error:
        parser.error(str(error))
    except RuntimeError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    where = environment(settings, options.threads)
    names = ", ".join(f"{package} {number}" for package, number in where["versions"].items() if number)
    print(
        f"\n{settings.model}, {settings.resolution} px, batch {settings.batch}, APGD with {settings.n_iter} iterations"
    )
    print(f"{names}; {where['threads']} threads; {options.repeats} rounds\n")
    print(table(times))
    for variant, reason in missing.items():
        print(f"without {variant}: {reason}")
    if options.json is not None:
        record = {
            **asdict(settings),
            **where,
            "variants": {variant: asdict(measured) for variant, measured in times.items()},
            "ratios": ratios(times),
            "missing": missing,
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
