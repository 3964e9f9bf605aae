"""Time the input pipeline of training, from JPEG files to augmented batches, against timm and torchvision.

The same files on the same cores, with as many workers (processes, for tf.data threads), the heavy policy of Singh et
al. 2023 on all sides: RandomResizedCrop, flip, RandAugment rand-m9-mstd0.5-inc1, random erasing, mixup or cutmix, label
smoothing, float32 batches; of "grain", 8-bit batches, whose rest the compiled step does. Each variant passes over its
batches when it is its turn, and begins where none are ready.

Then the worker processes by themselves: images per second by one worker and by all, CPU time of the main process, from
which follows how many images a second it can pass on, memory of a worker, and what more cores would give.
"""

import dataclasses
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import timing
from timing import Unavailable, measure, positive

EXAMPLES = """\
examples:
  python tools/benchmark_data.py --python ../timm/bin/python
  python tools/benchmark_data.py --python ../timm/bin/python --data imagenet/train --threads 8 --batches 20
  python tools/benchmark_data.py --policy basic --source imagenette-train-128.tar

The interpreter given with --python needs torch, torchvision and timm, which need not be installed beside TensorFlow.
Without --data, JPEGs of ImageNet's usual size (500 x 375, about 100 kB) are cut from photographs of scikit-image.
"""
WIDTH, HEIGHT, COPIES, QUALITY = 500, 375, 20, 92


@dataclass(frozen=True)
class Settings:
    """What is timed: a step is a pass over `batches` batches."""

    folder: str
    policy: str
    resolution: int
    batch: int
    batches: int
    workers: int
    python: str | None
    backend: str
    source: str | None = None


def pipeline(settings, workers, **options):
    os.environ["KERAS_BACKEND"] = settings.backend
    import keras_robust as kr

    images = kr.data.source(settings.source or settings.folder, "train" if settings.source else None)
    return kr.data.TrainPipeline(
        images, settings.policy, settings.resolution, settings.batch, workers=workers, **options
    )


def passes(settings, train):
    """A function that passes over the batches once, each time from a step on of which nothing is computed yet."""
    begins = itertools.count(0, settings.batches + 1000)

    def step():
        begin = next(begins)
        for i in range(settings.batches):
            x, _ = train.batch(begin + i)
            assert x.shape == (settings.batch, settings.resolution, settings.resolution, 3)

    return step


def grain(settings):
    return passes(settings, pipeline(settings, settings.workers, engine="grain", on_device=True))


def grain_floats(settings):
    return passes(settings, pipeline(settings, settings.workers, engine="grain"))


def tf_data(settings):
    stream = pipeline(settings, settings.workers, engine="tf.data").dataset(steps=settings.batches)

    def step():
        for x, _ in stream:
            assert x.shape == (settings.batch, settings.resolution, settings.resolution, 3)

    return step


def timm(kind, settings):
    if settings.python is None:
        raise Unavailable("no --python with timm was given")
    if settings.policy != "heavy":
        raise Unavailable("written for the heavy policy alone")
    numbers = (settings.resolution, settings.batch, settings.batches, settings.workers)
    script = Path(__file__).with_name("timm_pipeline.py")
    try:
        process = subprocess.Popen(
            [settings.python, str(script), kind, settings.folder, *map(str, numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    except OSError as error:
        raise ValueError(f"argument --python: {error}") from error

    def step():
        try:
            process.stdin.write("\n")
            process.stdin.flush()
            assert int(process.stdout.readline()) == settings.batch * settings.batches
        except (OSError, ValueError) as error:
            raise Unavailable(f"{settings.python} could not run {script.name} (see above)") from error

    return step


def timm_loader(settings):
    return timm("loader", settings)


def timm_plain(settings):
    return timm("plain", settings)


VARIANTS = {
    "grain": grain,
    "grain, floats": grain_floats,
    "tf.data": tf_data,
    "timm": timm_loader,
    "torchvision": timm_plain,
}
RATIOS = (("timm", "grain"), ("torchvision", "grain"), ("tf.data", "grain"), ("grain, floats", "grain"))
CORES = (8, 32, 96)  # of the projection


@dataclass(frozen=True)
class Workers:
    """What worker processes give and take: images per second, seconds of CPU per image, MiB."""

    rates: dict[int, float]
    main_seconds: float
    worker_memory: float | None

    def projected(self, cores):
        """Images per second on that many cores, one of them for the main process, if memory and disks keep up."""
        return min((cores - 1) * self.rates[1], 1 / self.main_seconds)

    def table(self):
        most = max(self.rates)
        lines = [f"{count:>3} workers {rate:>9.0f} images/s" for count, rate in self.rates.items()]
        lines += [
            f"{most} workers give {self.rates[most] / self.rates[1]:.2f} times what one gives",
            f"main process {1000 * self.main_seconds:.4f} ms of CPU per image",
        ]
        if self.worker_memory is not None:
            lines.append(f"{self.worker_memory:.0f} MiB of memory per worker, shared pages divided by their users")
        rates = ", ".join(f"{cores} cores {self.projected(cores):,.0f}" for cores in CORES)
        return "\n".join([*lines, f"projection, not measured, images/s: {rates}"])


def measure_workers(settings, repeats):
    """One worker and all of them in turn, 8-bit batches of the policy's host part."""
    counts = sorted({1, settings.workers})
    trains = {count: pipeline(settings, count, engine="grain", on_device=True) for count in counts}
    steps = {count: passes(settings, train) for count, train in trains.items()}
    rates, main_seconds = {count: [] for count in counts}, []
    images = settings.batch * settings.batches
    for count in counts:
        steps[count]()
    for _ in range(repeats):
        for count in counts:
            time.sleep(1)  # until all have their batches ahead ready
            begin, cpu = time.perf_counter(), time.process_time()
            steps[count]()
            rates[count].append(images / (time.perf_counter() - begin))
            main_seconds.append((time.process_time() - cpu) / images)
    memory = [kib for process in multiprocessing.active_children() if (kib := proportional_memory(process.pid))]
    for train in trains.values():
        train.close()
    return Workers(
        {count: statistics.median(rate) for count, rate in rates.items()},
        statistics.median(main_seconds),
        statistics.mean(memory) / 1024 if memory else None,
    )


def proportional_memory(process):
    """KiB of a process, pages that it shares divided by their users; None where the system does not tell."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def write_photographs(folder):
    """JPEGs of ImageNet's usual size in one folder per class, from crops of photographs."""
    import random

    from PIL import Image

    import keras_robust as kr

    draw = random.Random(0)
    source = kr.data.photo_crops("train", per_class=1)
    for label, name in enumerate(source.class_names):
        photo = Image.fromarray(source.photo(label))
        (Path(folder) / name).mkdir()
        for copy in range(COPIES):
            width = draw.uniform(0.6, 1.0) * min(photo.width, photo.height * WIDTH / HEIGHT)
            height = width * HEIGHT / WIDTH
            left, top = draw.uniform(0, photo.width - width), draw.uniform(0, photo.height - height)
            image = photo.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, (left, top, left + width, top + height))
            image.save(Path(folder) / name / f"{copy}.jpg", quality=QUALITY)


def main():
    parser = timing.Parser(description=__doc__, epilog=EXAMPLES)
    parser.set_defaults(repeats=7)
    parser.add_argument("--data", type=Path, help="folder of images, one folder per class (default: see below)")
    parser.add_argument("--source", help="what keras_robust reads instead, e.g. a tar of --data or tfds:NAME")
    parser.add_argument("--python", help="interpreter with torch, torchvision and timm")
    parser.add_argument("--policy", choices=("heavy", "basic"), default="heavy", help="(%(default)s)")
    parser.add_argument("--resolution", type=positive, default=224, help="side of the images in pixels (%(default)s)")
    parser.add_argument("--batch", type=positive, default=80, help="(%(default)s)")
    parser.add_argument("--batches", type=positive, default=30, help="in one step (%(default)s)")
    options = parser.parse_args()
    if options.data is not None and not options.data.is_dir():
        parser.error(f"argument --data: there is no folder {options.data}")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with tempfile.TemporaryDirectory() as temporary:
        if options.data is None:
            write_photographs(temporary)
        settings = Settings(
            folder=str(options.data or temporary),
            policy=options.policy,
            resolution=options.resolution,
            batch=options.batch,
            batches=options.batches,
            workers=options.threads or timing.available_cores(),
            python=options.python,
            backend=options.backend,
            source=options.source,
        )
        try:
            times, missing = measure(
                VARIANTS, settings, options.repeats, options.threads, lambda message: print(message, file=sys.stderr)
            )
        except ValueError as error:
            parser.error(str(error))
        workers = measure_workers(settings, options.repeats)
    for variant, reason in missing.items():
        print(f"without {variant}: {reason}", file=sys.stderr)
    images = settings.batch * settings.batches
    print(timing.table(times, RATIOS))
    for variant, measured in times.items():
        rate = images / timing.statistics.median(measured.seconds)
        print(f"{variant:<16}{rate:>9.0f} images/s with {settings.workers} workers, {rate / settings.workers:.0f} each")
    print(workers.table())
    if options.json is not None:
        report = {
            "settings": dataclasses.asdict(settings),
            "environment": timing.environment(("keras", "tensorflow", "keras-cv", "grain", "pillow"), options.threads),
            "images": images,
            "times": {variant: dataclasses.asdict(measured) for variant, measured in times.items()},
            "ratios": timing.ratios(times, RATIOS),
            "workers": dataclasses.asdict(workers),
            "projected": {cores: workers.projected(cores) for cores in CORES},
        }
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
