"""Campaign of arguments: every public function is called with one or two arguments that it may not like.

Each case follows from `--seed` and its number. A case ends in one of:

- refused: a `ValueError` that names the argument;
- nameless: a `ValueError` that does not;
- done: what came out is sense: finite, in the ball, in [0, 1], of the right size;
- nonsense: what came out is not;
- foreign: another exception;
- slow: more than 60 seconds of processor time, or 600 of waiting.

    KERAS_BACKEND=tensorflow python tools/fuzz_arguments.py --cases 2000 --out fuzz_arguments.json
    KERAS_BACKEND=jax python tools/fuzz_arguments.py --only 17
"""

import argparse
import contextlib
import dataclasses
import io
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from campaign import Tally

import keras_robust as kr

SECONDS, WAITING_SECONDS, GIGABYTES = 60, 600, 8
FINE = ("refused", "done")
CLASSES, SIDE, BATCH = 3, 16, 4


@dataclasses.dataclass(frozen=True)
class Target:
    """A function under test.

    Attributes:
        call: of the arguments; raises `Nonsense` where what comes out is none.
        usual: arguments that are accepted.
        odd: argument -> what it is tried with besides `ODD`.
    """

    call: Callable[..., Any]
    usual: dict[str, Any]
    odd: dict[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)


class Nonsense(Exception):
    """What came out is of the wrong form."""


# Words that an argument is also called by in messages.
ALSO_CALLED = ("dataset", "images", "labels", "loss", "threat", "eps", "norm", "a setting", "target")

# What any argument may be given.
ODD = (
    None,
    -1,
    0,
    1,
    2,
    1.5,
    1e300,
    10**30,
    -(2**63),
    float("nan"),
    float("inf"),
    "",
    "x",
    "Linf",
    True,
    False,
    [],
    {},
    (),
    (1, 2),
    [0.5, "a"],
    np.zeros(0),
    np.zeros((2, 2), np.float32),
    np.array(3),
    np.float16(2),
    b"x",
    object(),
    len,
    3 + 2j,
)


def net() -> Any:
    keras.utils.set_random_seed(0)
    layers = [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(CLASSES)]
    return keras.Sequential(layers)


MODEL = net()
X = np.random.default_rng(0).random((BATCH, SIDE, SIDE, 3), dtype="float32")
Y = np.arange(BATCH) % CLASSES
THREAT = kr.ThreatModel("Linf", 8 / 255)
IMAGES = (
    X * np.nan,
    X * 255,
    X - 0.5,
    X[0],
    X[..., :1],
    X.astype("float64"),
    (X * 255).astype("uint8"),
    X[:0],
    X.tolist(),
    np.moveaxis(X, 3, 1),
    X.astype(complex),
    X.astype(object),
    X > 0.5,
    X.astype("float16"),
    np.full_like(X, np.inf),
)
LABELS = (
    Y + CLASSES,
    Y - 1,
    Y[:2],
    Y[:, None],
    np.eye(CLASSES)[Y],
    Y.astype(float),
    Y + 0.5,
    Y.astype(str),
    Y.tolist(),
    np.zeros((BATCH, CLASSES)),
    np.ones((BATCH, CLASSES)),
    Y.astype("uint8"),
    Y > 0,
    np.full(BATCH, np.nan),
)
MODELS = (lambda x: x, lambda x: np.zeros((len(x), 3)), 3, "resnet50", keras.layers.Dense(3))


def check_adversarial(x_adv: Any, x: Any, threat: Any) -> None:
    x_adv = np.asarray(x_adv)
    if x_adv.shape != np.shape(x) or not np.isfinite(x_adv).all() or x_adv.min() < 0 or x_adv.max() > 1:
        raise Nonsense(f"x_adv of shape {x_adv.shape}, not finite or outside of [0, 1]")
    size = threat.perturbation_norm(x_adv - np.asarray(x, "float32")) if hasattr(threat, "perturbation_norm") else None
    if size is not None and np.max(np.asarray(size)) > threat.eps * (1 + 1e-4) + 1e-6:
        raise Nonsense(f"a perturbation of norm {np.max(np.asarray(size))} in a ball of {threat.eps}")


def attack(kind: Any) -> Callable[..., None]:
    def call(model: Any, x: Any, y: Any, threat: Any, **options: Any) -> None:
        check_adversarial(kind(threat, **options)(model, x, y), x, threat)

    return call


def autoattack(model: Any, x: Any, y: Any, threat: Any, **options: Any) -> None:
    result = kr.attacks.AutoAttack(threat, **options)(model, x, y)
    check_adversarial(result.x_adv, x, threat)
    if not 0 <= result.robust_accuracy <= result.clean_accuracy <= 1:
        raise Nonsense(f"robust {result.robust_accuracy}, clean {result.clean_accuracy}")


def trainer(x: Any, y: Any, attack: Any, **options: Any) -> None:
    model = kr.AdversarialModel(net(), attack, **options)
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0).history
    if not all(np.isfinite(value).all() for value in history.values()):
        raise Nonsense(f"history {history}")


def created(**options: Any) -> None:
    model = kr.models.create("convnext_atto", **options)
    if model.output_shape[-1] != options["num_classes"]:
        raise Nonsense(f"outputs {model.output_shape}")


def evaluated(**options: Any) -> None:
    report = kr.evaluation.evaluate(MODEL, verbose=False, **options)
    if report is not None and not all(0 <= cell.robust_accuracy <= cell.clean_accuracy <= 1 for cell in report.results):
        raise Nonsense("accuracies out of order")


def cropped(**options: Any) -> None:
    image = kr.data.resize_and_crop(**options)
    if image.shape != (options["resolution"], options["resolution"], 3) or image.dtype != np.uint8:
        raise Nonsense(f"an image of shape {image.shape}")


def schedule(**options: Any) -> None:
    value = float(keras.ops.convert_to_numpy(kr.training.WarmupCosine(**options)(3)))
    if not np.isfinite(value) or value < 0:
        raise Nonsense(f"a learning rate of {value}")


def threat(**options: Any) -> None:
    made = kr.ThreatModel(**options)
    unbounded = options["eps"] is None or options["eps"] == np.inf  # asked for
    if not (0 <= made.eps < np.inf or unbounded):
        raise Nonsense(f"eps {made.eps}")


def parsed(text: Any) -> None:
    made = kr.ThreatModel.parse(text)
    if not made.is_bounded:  # which only the word asks for, and it is not among these
        raise Nonsense(f"eps {made.eps}")


def source(**options: Any) -> None:
    if not len(kr.data.source(**options)):
        raise Nonsense("no images")


def pipeline(**options: Any) -> None:
    pipe = kr.data.TrainPipeline(PHOTOS, **options)
    x, _ = next(iter(pipe.dataset(0))) if hasattr(pipe, "dataset") else next(iter(pipe))
    if not np.isfinite(np.asarray(x)).all():
        raise Nonsense("images that are not finite")


def overridden(assignment: Any) -> None:
    from keras_robust.recipes.overrides import override

    override(kr.recipes.Recipe("fuzz"), [assignment])


PHOTOS = kr.data.photo_crops("val", per_class=1)
BASE = {"model": MODEL, "x": X, "y": Y, "threat": THREAT}
OF_BASE = {"model": MODELS, "x": IMAGES, "y": LABELS}
ASSIGNMENTS = [
    f"{part.name}.{setting.name}={value}"
    for part in dataclasses.fields(kr.recipes.Recipe)
    if dataclasses.is_dataclass(getattr(kr.recipes.Recipe("fuzz"), part.name))
    for setting in dataclasses.fields(getattr(kr.recipes.Recipe("fuzz"), part.name))
    for value in ("-1", "0", "1e400", "nan", "[]", "{}", "none", "x", '"', "(1,2)", "8/0", "", "true", "9" * 30)
]
ATTACK_ODD: dict[str, tuple[Any, ...]] = {**OF_BASE, "threat": (None, "Linf", kr.ThreatModel("L1", 2.0))}
TARGETS = {
    "ThreatModel": Target(threat, {"norm": "Linf", "eps": 0.1}, {"norm": ("L3", "linf", "l2"), "eps": ("8/255", 255)}),
    "ThreatModel.parse": Target(
        parsed,
        {"text": "Linf:4/255"},
        {"text": ("Linf", "L2:", ":1", "Linf:8", "L1:1/0", "L2:-1", "L2:nan", "L2:1e999")},
    ),
    "FGSM": Target(attack(kr.attacks.FGSM), {**BASE, "step_size": None, "seed": 0}, ATTACK_ODD),
    "PGD": Target(attack(kr.attacks.PGD), {**BASE, "n_iter": 2, "step_size": 0.01, "n_restarts": 1}, ATTACK_ODD),
    "APGD": Target(
        attack(kr.attacks.APGD), {**BASE, "n_iter": 2, "schedule": "constant", "loss": "ce", "seed": 0}, ATTACK_ODD
    ),
    "NFGSM": Target(attack(kr.attacks.NFGSM), {**BASE, "noise": 2.0}, ATTACK_ODD),
    "FAB": Target(
        attack(kr.attacks.FAB),
        {**BASE, "n_iter": 2, "targeted": False, "n_restarts": 1, "n_target_classes": 2},
        ATTACK_ODD,
    ),
    "Square": Target(attack(kr.attacks.Square), {**BASE, "n_queries": 5, "p_init": 0.8, "n_restarts": 1}, ATTACK_ODD),
    "AutoAttack": Target(
        autoattack,
        {**BASE, "version": "short", "batch_size": 4, "seed": 0},
        {**ATTACK_ODD, "version": ("rand", "Standard")},
    ),
    "AdversarialModel": Target(
        trainer,
        {
            "x": X,
            "y": Y,
            "attack": kr.attacks.FGSM(THREAT),
            "eps_warmup_steps": 0,
            "ema_decay": None,
            "seed": 0,
        },
        {"x": IMAGES, "y": LABELS, "attack": (kr.attacks.FGSM, THREAT, "apgd"), "ema_decay": (0.5, 1.0)},
    ),
    "create": Target(
        created,
        {"num_classes": 3, "input_size": 32, "drop_path_rate": 0.0, "normalization": None, "layer_scale_init": None},
        {"normalization": ("imagenet", ((0.5,) * 3, (0.0,) * 3), ((0.5,), (0.5,))), "input_size": ((32, 64), 31)},
    ),
    "evaluate": Target(
        evaluated,
        {
            "dataset": PHOTOS,
            "threats": [THREAT],
            "resolutions": [16],
            "attack": "short",
            "n_examples": 2,
            "seed": 0,
            "batch_size": 2,
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "class_names": None,
            "shard": None,
        },
        {
            "threats": ([THREAT, THREAT], "Linf:1"),
            "resolutions": ([16, 16], [0]),
            "shard": ((0, 2), (3, 2)),
            "class_names": (["a"], list("abc")),
            "n_examples": (10**6,),
        },
    ),
    "resize_and_crop": Target(
        cropped,
        {"image": np.zeros((20, 30, 3), np.uint8), "resolution": 16, "crop_pct": 0.875, "interpolation": "bicubic"},
        {"image": IMAGES, "resolution": (10**5,)},
    ),
    "WarmupCosine": Target(
        schedule, {"peak": 1e-3, "epochs": 3, "steps_per_epoch": 10, "warmup_epochs": 1, "start": None, "final": 0.0}
    ),
    "source": Target(
        source,
        {"path_or_name": "photo_crops", "split": "train", "seed": 0},
        {
            "path_or_name": ("/", "/dev/null", "/dev/zero", "tfds:", "tfds:x/y", "photo_crop", "\0"),
            "split": ("Test", "dev"),
        },
    ),
    "TrainPipeline": Target(
        pipeline,
        {"policy": "basic", "resolution": 16, "batch_size": 2, "seed": 0, "shard": (1, 1), "workers": 1},
        {"policy": ("havy", kr.data.HEAVY), "shard": ((0, 1), (2, 1))},
    ),
    "Recipe": Target(overridden, {"assignment": "training.epochs=3"}, {"assignment": tuple(ASSIGNMENTS)}),
}


def case_of(number: int, seed: int) -> tuple[str, dict[str, Any], list[str]]:
    """Target, arguments and the names of those that are odd."""
    draw = random.Random(f"{seed}/{number}")
    name = draw.choice(list(TARGETS))
    target = TARGETS[name]
    arguments = dict(target.usual)
    changed = draw.sample(list(arguments), min(len(arguments), draw.choice((1, 1, 2))))
    for argument in changed:
        special = target.odd.get(argument, ())
        arguments[argument] = draw.choice(special if special and draw.random() < 0.7 else ODD)
    return name, arguments, changed


def shortened(value: Any) -> str:
    text = repr(value)
    if isinstance(value, np.ndarray):
        text = f"{value.dtype} {value.shape}"
    return " ".join(text.split())[:60]


def run_case(number: int, seed: int) -> tuple[str, str]:
    name, arguments, changed = case_of(number, seed)
    what = f"{name}({', '.join(f'{each}={shortened(arguments[each])}' for each in changed)})"
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), contextlib.chdir(folder):
        warnings.simplefilter("ignore")
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                TARGETS[name].call(**arguments)
        except Nonsense as error:
            return "nonsense", f"{what}: {error}"
        except ValueError as error:
            message = " ".join(str(error).split())
            known = [*changed, *ALSO_CALLED]
            dotted = [str(arguments[each]).split("=")[0] for each in changed]
            named = any(re.search(rf"\b{re.escape(each)}\b", message) for each in (*known, *dotted) if each)
            return ("refused" if named else "nameless"), f"{what}: {message[:200]}"
        except Stopped:
            return "slow", what
        except MemoryError:
            return "memory", f"{what}: more than {GIGABYTES} GiB"
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            return (
                "foreign",
                f"{what}: {type(error).__name__}: {str(error)[:150]} ({Path(where.filename).name}:{where.lineno})",
            )
    return "done", what


class Stopped(BaseException):
    """A case took too long; no `except Exception` on the way holds it up."""


def stop(*_: Any) -> None:
    raise Stopped


def allow(seconds: float, waiting_seconds: int) -> None:
    """So much processor time and waiting for what comes next; 0 for any."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(waiting_seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run one case and show how it ends")
    parser.add_argument("--show", choices=("done", "refused"), help="list these cases, too")
    parser.add_argument("--out", type=Path, help="JSON of the counts and of every case that is not fine")
    options = parser.parse_args()
    for each in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(each, stop)
    resource.setrlimit(resource.RLIMIT_DATA, (GIGABYTES * 2**30,) * 2)
    tally, slowest = Tally(FINE), (0.0, "")
    for number in range(options.cases) if options.only is None else [options.only]:
        allow(SECONDS, WAITING_SECONDS)
        start = time.process_time()
        outcome, message = run_case(number, options.seed)
        allow(0, 0)
        slowest = max(slowest, (time.process_time() - start, message))
        tally.add(message.split("(")[0], number, outcome, message)
        if options.show == outcome or options.only is not None:
            print(number, outcome, message, flush=True)
    print(f"{keras.backend.backend()}; the slowest {slowest[0]:.1f} s: {slowest[1][:100]}")
    return tally.finish(options.out, backend=keras.backend.backend(), seed=options.seed)


if __name__ == "__main__":
    sys.exit(main())
