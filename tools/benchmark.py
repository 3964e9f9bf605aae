"""Time a training step: clean, adversarial, and the same adversarial step in plain PyTorch. With --forward: inference.

The variants run in processes of their own and take turns (`timing.py`). On the CPU, or with --device gpu on one GPU:
there on JAX and PyTorch both, in bfloat16, beside the published kind of training (autocast, eager), compiled, too.
"""

import itertools
import json
import os
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import partial

from timing import Parser, Step, Unavailable, available_cores, environment, measure, positive, quartiles, ratios, table

EXAMPLES = """\
examples:
  python tools/benchmark.py
  python tools/benchmark.py --model vit_small_convstem --resolution 64 --batch 16
  python tools/benchmark.py --model convnext_atto_convstem --resolution 32 --batch 64 --repeats 50 --json atto.json
  python tools/benchmark.py --backend torch --n-iter 3
  python tools/benchmark.py --device gpu --model vit_small_convstem --resolution 224 --batch 80
  python tools/benchmark.py --forward
  python tools/benchmark.py --forward --model convnext_tiny vit_small --resolution 224 --batch 8

Counting passes through the network, a clean step costs 3 (one forward, two backward), a step with n attack iterations
2 n + 4: with n = 2 the ratio is 8 / 3 = 2.67. The optimizer's part, the same in both, makes the measured ratio smaller.

--forward compares with timm (in the faster of PyTorch's two memory formats) and with tools/plain_pytorch.py; of the
two, what is not installed or not written there is left out and named.
"""
EPS = 4 / 255
# Names in timm of the models that it has, and whether they are made for one size of images.
TIMM = {
    **{name: (name, False) for name in ("convnext_atto", "convnext_tiny", "convnext_small", "convnext_base")},
    "convnext_large": ("convnext_large", False),
    "vit_tiny": ("vit_tiny_patch16_224", True),
    "vit_small": ("vit_small_patch16_224", True),
    "vit_medium": ("deit3_medium_patch16_224", True),
    "vit_base": ("vit_base_patch16_224", True),
    "resnet50": ("resnet50", False),
    "xcit_small": ("xcit_small_12_p16_224", False),
    "swin_base": ("swin_base_patch4_window7_224", True),
}
# What --forward compares unless told otherwise: one model of each family.
FAMILIES = ("convnext_tiny", "convnext_isotropic_small", "vit_small", "resnet50", "xcit_small", "swin_base")
NUM_CLASSES = 1000


@dataclass(frozen=True)
class Settings:
    """What is timed; `backend` is that of Keras."""

    model: str
    resolution: int
    batch: int
    backend: str
    n_iter: int | None = None
    precision: str = "float32"
    device: str = "cpu"
    steps: int = 1  # that run to their end together


def images_and_labels(settings):
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.random((settings.batch, settings.resolution, settings.resolution, 3), dtype="float32")
    return x, rng.integers(0, NUM_CLASSES, settings.batch).astype("int32")


def keras_model(settings):
    os.environ["KERAS_BACKEND"] = settings.backend
    import keras

    import keras_robust as kr

    keras.utils.set_random_seed(0)
    return kr.models.create(settings.model, num_classes=NUM_CLASSES, input_size=settings.resolution)


def keras_step(settings, adversarial):
    model = keras_model(settings)
    import keras

    import keras_robust as kr

    if adversarial:
        model = kr.AdversarialModel(model, kr.attacks.APGD(kr.ThreatModel("Linf", EPS), n_iter=settings.n_iter))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3, weight_decay=0.05), loss)
    x, y = images_and_labels(settings)
    return lambda: model.train_on_batch(x, y)


def clean_step(settings):
    return keras_step(settings, adversarial=False)


def adversarial_step(settings):
    return keras_step(settings, adversarial=True)


def keras_forward(settings):
    model = keras_model(settings)
    x, _ = images_and_labels(settings)
    return lambda: model.predict_on_batch(x)


def import_torch():
    try:
        import torch
    except ImportError:
        raise Unavailable("PyTorch is not installed") from None
    torch.manual_seed(0)
    torch.set_num_threads(available_cores())
    return torch


def plain_pytorch_model(settings):
    torch = import_torch()
    os.environ["KERAS_BACKEND"] = "torch"
    import plain_pytorch

    from keras_robust.models import architecture

    model = plain_pytorch.create(architecture(settings.model), NUM_CLASSES, settings.resolution)
    if model is None:
        raise Unavailable(f"tools/plain_pytorch.py has no {settings.model}")
    return model.to("cuda" if settings.device == "gpu" and torch.cuda.is_available() else "cpu")


def pytorch_step(settings):
    model = plain_pytorch_model(settings)
    import plain_pytorch
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    x, y = images_and_labels(settings)
    # Channels-last in memory, as it is.
    x, y = torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(y).long()
    return lambda: plain_pytorch.training_step(model, optimizer, x, y, EPS, settings.n_iter).item()


def pytorch_forward(settings, model=None, channels_last=True):
    model = model or plain_pytorch_model(settings)
    import torch

    x = torch.from_numpy(images_and_labels(settings)[0]).permute(0, 3, 1, 2)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model, x = model.eval().to(memory_format=layout), x.contiguous(memory_format=layout)

    def step():
        with torch.inference_mode():
            return model(x)

    return step


def timm_forward(settings, channels_last=False):
    import_torch()
    if settings.model not in TIMM:
        raise Unavailable(f"timm has no {settings.model}")
    try:
        import timm
    except Exception as error:  # beside a broken torchvision it fails in many ways
        raise Unavailable(f"timm is not installed, or does not import: {error}") from None
    name, sized = TIMM[settings.model]
    sizes = {"img_size": settings.resolution} if sized else {}
    return pytorch_forward(settings, timm.create_model(name, num_classes=NUM_CLASSES, **sizes), channels_last)


def timm_forward_channels_last(settings):
    return timm_forward(settings, channels_last=True)


def epochs_of(settings, backend, adversarial=True, jit="auto", from_host=False):
    """`steps` training steps of `fit`, timed from the end of the first: all that Keras and callbacks do is in it.

    The images lie on the device, or with `from_host` in the host's memory.
    """
    settings = replace(settings, backend=backend)
    os.environ["KERAS_BACKEND"] = backend
    import keras

    import keras_robust as kr

    if settings.precision != "float32":
        keras.config.set_dtype_policy(f"mixed_{settings.precision}")
    model = keras_model(settings)
    work = kr.models.multiply_adds(model, settings.resolution)
    attack = kr.attacks.APGD(kr.ThreatModel("Linf", EPS), n_iter=settings.n_iter)
    trainer = kr.AdversarialModel(model, attack if adversarial else None, attack)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(kr.training.adamw(model, 1e-3), loss, jit_compile=jit)
    batch = images_and_labels(settings)
    if not from_host:
        batch = tuple(keras.ops.convert_to_tensor(array) for array in batch)

    class Clock(keras.callbacks.Callback):
        """Without `on_train_batch_end`, for which Keras would wait after every step."""

        def on_train_batch_begin(self, index, logs=None):
            if index == 1:  # the check of the input has just waited for the first step
                self.start = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            wait_for(backend)  # the logs are numbers: JAX has done its last step
            self.seconds = time.perf_counter() - self.start

    clock = Clock()

    def run():
        batches = (each for each in itertools.repeat(batch))
        trainer.fit(batches, steps_per_epoch=settings.steps + 1, verbose=0, callbacks=[clock])
        give_back(backend)
        return clock.seconds / settings.steps

    passes = 2 * settings.n_iter + 4 if adversarial else 3
    return Step(run, lambda: {"multiply_adds": work, "passes": passes, **device_memory(backend)})


def plain_steps(settings, channels_last=True, compiled=False, adversarial=True):
    """The published kind of training: plain PyTorch, autocast, eager or compiled."""
    model = plain_pytorch_model(settings)
    import plain_pytorch
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    x, y = (torch.from_numpy(array).to(device) for array in images_and_labels(settings))
    x, y = x.permute(0, 3, 1, 2).contiguous(memory_format=layout), y.long()
    forward = torch.compile(model) if compiled else model
    n_iter = settings.n_iter if adversarial else 0

    def run():
        for i in range(settings.steps + 1):
            plain_pytorch.training_step(forward, optimizer, x, y, EPS, n_iter, settings.precision)
            if i == 0:  # the first allocates what it needs
                wait_for("torch")
                start = time.perf_counter()
        wait_for("torch")
        seconds = time.perf_counter() - start
        give_back("torch")
        return seconds / settings.steps

    return Step(run, lambda: {"passes": 2 * n_iter + 4 if n_iter else 3, **device_memory("torch")})


def wait_for(backend):
    """Until the GPU has done what PyTorch told it."""
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()


def give_back(backend):
    """The memory that PyTorch keeps for its next step, to the processes whose turn is next."""
    if backend == "torch":
        import torch

        torch.cuda.empty_cache()


def device_memory(backend):
    """The device's name and the most of its memory that was in use, MiB: on JAX since the process began (what compiling
    tries out included), on PyTorch of what was allocated."""
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        statistics = device.memory_stats() or {}
        found = {"device": device.device_kind}
        return found | {"peak_memory": statistics["peak_bytes_in_use"] / 2**20} if statistics else found
    import torch

    if not torch.cuda.is_available():
        return {"device": "cpu"}
    return {"device": torch.cuda.get_device_name(), "peak_memory": torch.cuda.max_memory_allocated() / 2**20}


# Each builds, in its own process, a function without arguments that runs one step to its end.
TRAINING = {"clean": clean_step, "adversarial": adversarial_step, "pytorch": pytorch_step}
TRAINING_RATIOS = (("adversarial", "clean"), ("adversarial", "pytorch"))
# On a GPU, the most telling first; with jit_compile=True our PyTorch step is compiled in parts.
GPU_TRAINING = {
    "jax": partial(epochs_of, backend="jax"),
    "plain nhwc": plain_steps,
    "torch compiled": partial(epochs_of, backend="torch", jit=True),
    "jax clean": partial(epochs_of, backend="jax", adversarial=False),
    "plain nchw": partial(plain_steps, channels_last=False),
    "plain nhwc clean": partial(plain_steps, adversarial=False),
    "plain compiled": partial(plain_steps, compiled=True),
    "torch": partial(epochs_of, backend="torch", jit=False),
    "torch clean compiled": partial(epochs_of, backend="torch", adversarial=False, jit=True),
    "jax from host": partial(epochs_of, backend="jax", from_host=True),
}
GPU_RATIOS = (
    ("jax", "jax clean"),
    ("torch compiled", "torch clean compiled"),
    ("plain nhwc", "plain nhwc clean"),
    *((other, ours) for ours in ("jax", "torch compiled") for other in ("plain nhwc", "plain nchw", "plain compiled")),
)
FORWARD = {
    "keras": keras_forward,
    "timm": timm_forward,
    "timm nhwc": timm_forward_channels_last,
    "pytorch": pytorch_forward,
}
FORWARD_COLUMNS = {"keras": "keras_robust", "timm": "timm", "timm nhwc": "timm, nhwc", "pytorch": "plain PyTorch"}


def progress(message):
    print(message, file=sys.stderr, flush=True)


def gpu_training(options):
    """Run and print the comparison on a GPU; returns the record for --json."""
    settings = Settings(
        options.model[0],
        options.resolution,
        options.batch,
        "",
        options.n_iter,
        options.precision,
        options.device,
        options.steps,
    )
    variants = {name: GPU_TRAINING[name] for name in options.variants or GPU_TRAINING}
    times, missing = measure(
        variants,
        settings,
        options.repeats,
        options.threads,
        progress,
        device="gpu",
        # JAX tries kernels out while it compiles: one at a time, beside what PyTorch compiles on the CPU.
        lane=lambda variant: variant.split()[0],
        build_limit=options.build_limit,
    )
    print(f"\n{settings.model}, {settings.resolution} px, batch {settings.batch}, {settings.precision}")
    print(f"{options.where}\n\n{table(times, GPU_RATIOS)}")
    for variant, reason in missing.items():
        print(f"without {variant}: {reason}")
    return record(settings, times, missing, GPU_RATIOS)


def training(options):
    """Run and print the comparison of training steps; returns the record for --json."""
    settings = Settings(options.model[0], options.resolution, options.batch, options.backend, options.n_iter)
    times, missing = measure(TRAINING, settings, options.repeats, options.threads, progress)
    print(f"\n{settings.model}, {settings.resolution} px, batch {settings.batch}, APGD of {settings.n_iter} iterations")
    print(f"{options.where}\n\n{table(times, TRAINING_RATIOS)}")
    for variant, reason in missing.items():
        print(f"without {variant}: {reason}")
    return record(settings, times, missing, TRAINING_RATIOS)


def forward(options):
    """Run and print the comparison of inference, one row per model; returns the records for --json."""
    lines, notes, records = [], [], []
    for name in options.model:
        settings = Settings(name, options.resolution, options.batch, options.backend)
        progress(f"== {name}")
        times, missing = measure(FORWARD, settings, options.repeats, options.threads, progress)
        cells = [f"{settings.batch / statistics.median(times[v].seconds):.1f}" if v in times else "-" for v in FORWARD]
        others = [variant for variant in times if variant.startswith("timm")] or [v for v in times if v != "keras"]
        if others:
            best = min(others, key=lambda variant: statistics.median(times[variant].seconds))
            by_round = [other / own for own, other in zip(times["keras"].seconds, times[best].seconds)]
            low, high = quartiles(by_round)
            cells.append(f"{statistics.median(by_round):.2f} ({low:.2f} - {high:.2f}) x {FORWARD_COLUMNS[best]}")
        lines.append((name, *cells))
        notes += [
            f"{name}: without {FORWARD_COLUMNS[v]}: {reason}" for v, reason in missing.items() if v != "timm nhwc"
        ]
        records.append(record(settings, times, missing, [(other, "keras") for other in others]))
    print(f"\nInference, {options.resolution} px, batch {options.batch}: images per second\n{options.where}\n")
    print(f"{'model':<26}" + "".join(f"{title:>15}" for title in FORWARD_COLUMNS.values()) + "  ours (middle half)")
    for name, *cells in lines:
        print(f"{name:<26}" + "".join(f"{cell:>15}" for cell in cells[:4]) + "  " + "".join(cells[4:]))
    print(*notes, sep="\n")
    return records


def record(settings, times, missing, pairs):
    return {
        **asdict(settings),
        "variants": {variant: asdict(measured) for variant, measured in times.items()},
        "ratios": ratios(times, pairs),
        "missing": missing,
    }


def main(arguments=None):
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--forward", action="store_true", help="time inference instead of training steps")
    parser.add_argument(
        "--model", nargs="+", help="of kr.models.names(); several with --forward (convnext_tiny_convstem; all families)"
    )
    parser.add_argument("--resolution", type=positive, help="side of the images, pixels (64; with --forward 224)")
    parser.add_argument("--batch", type=positive, help="images per step (16; with --forward 8)")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="(%(default)s)")
    parser.add_argument("--variants", nargs="+", choices=GPU_TRAINING, metavar="NAME", help="on a GPU: some of them")
    parser.add_argument("--precision", choices=("bfloat16", "float16", "float32"), default="bfloat16", help="on a GPU")
    parser.add_argument("--steps", type=positive, default=20, help="on a GPU: steps between two looks at the clock")
    parser.add_argument("--build-limit", type=positive, metavar="S", help="on a GPU: leave out what builds longer")
    parser.add_argument("--n-iter", type=positive, default=2, help="iterations of the attack (%(default)s)")
    options = parser.parse_args(arguments)
    options.model = options.model or (FAMILIES if options.forward else ["convnext_tiny_convstem"])
    if len(options.model) > 1 and not options.forward:
        parser.error("argument --model: one at a time, several only with --forward")
    options.resolution = options.resolution or (224 if options.forward else 64)
    options.batch = options.batch or (8 if options.forward else 16)
    backends = ("jax",) if options.device == "gpu" else (options.backend,)
    where = environment(("keras", *backends, "torch", "timm"), options.threads)
    versions = ", ".join(f"{package} {number}" for package, number in where["versions"].items() if number)
    options.where = f"{versions}; {where['threads']} threads; {options.repeats} rounds"
    try:
        work = forward if options.forward else gpu_training if options.device == "gpu" else training
        result = work(options)
    except ValueError as error:
        parser.error(str(error))
    except RuntimeError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    if options.json is not None:
        options.json.write_text(json.dumps({**where, "results": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
