"""Time and memory of a training step of a segmentation model: clean and adversarial, in turns (`timing.py`).

Both steps train the auxiliary head, too; the clean one is Keras' own. Counting passes through the network, a clean step
costs 3 (one forward, two backward) and PGD of n iterations 2 n more: with n = 5 the ratio is 13 / 3 = 4.33. The attack
leaves the auxiliary head out, and the optimizer's part is the same in both, which makes the measured ratio smaller.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass

from timing import Parser, environment, measure, positive, ratios, table

EXAMPLES = """\
examples:
  python tools/benchmark_segmentation.py --threads 1
  python tools/benchmark_segmentation.py --model upernet_convnext_tiny_convstem --size 128 128 --batch 2 --repeats 10
"""
EPS, STEP_SIZE, NUM_CLASSES, AUXILIARY_WEIGHT = 4 / 255, 0.01, 21, 0.4
RATIOS = (("adversarial", "clean"),)


@dataclass(frozen=True)
class Settings:
    """What is timed; `backend` is that of Keras."""

    model: str
    size: tuple[int, int]
    batch: int
    backend: str
    n_iter: int


def data_and_model(settings):
    os.environ["KERAS_BACKEND"] = settings.backend
    import keras
    import numpy as np

    import keras_robust as kr

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.random((settings.batch, *settings.size, 3), dtype="float32")
    y = rng.integers(0, NUM_CLASSES, (settings.batch, *settings.size)).astype("int32")
    model = kr.segmentation.create(settings.model, NUM_CLASSES)
    return x, y, kr.segmentation.with_auxiliary_head(model), keras.optimizers.AdamW(1e-3, weight_decay=0.01)


def clean_step(settings):
    x, y, model, optimizer = data_and_model(settings)
    import keras_robust as kr

    losses = [kr.segmentation.PixelCrossEntropy(), kr.segmentation.PixelCrossEntropy()]
    model.compile(optimizer, losses, loss_weights=[1.0, AUXILIARY_WEIGHT])
    return lambda: model.train_on_batch(x, [y, y])


def adversarial_step(settings):
    x, y, model, optimizer = data_and_model(settings)
    import keras_robust as kr

    threat = kr.ThreatModel("Linf", EPS)
    attack = kr.attacks.PGD(threat, n_iter=settings.n_iter, step_size=STEP_SIZE, returns="last")
    loss = kr.segmentation.PixelCrossEntropy(auxiliary_weight=AUXILIARY_WEIGHT)
    trainer = kr.AdversarialModel(model, attack, objective=loss)
    trainer.compile(optimizer, loss)
    return lambda: trainer.train_on_batch(x, y)


# Each builds, in its own process, a function without arguments that runs one step to its end.
VARIANTS = {"clean": clean_step, "adversarial": adversarial_step}


def main(arguments=None):
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--model", default="upernet_convnext_atto_convstem", help="of kr.segmentation.names()")
    parser.add_argument("--size", type=positive, nargs=2, default=(96, 128), help="height and width, pixels (96 128)")
    parser.add_argument("--batch", type=positive, default=8, help="images per step (%(default)s)")
    parser.add_argument("--n-iter", type=positive, default=5, help="iterations of the attack (%(default)s)")
    options = parser.parse_args(arguments)
    settings = Settings(options.model, tuple(options.size), options.batch, options.backend, options.n_iter)
    where = environment(("keras", options.backend), options.threads)

    def progress(message):
        print(message, file=sys.stderr, flush=True)

    try:
        times, missing = measure(VARIANTS, settings, options.repeats, options.threads, progress)
    except ValueError as error:
        parser.error(str(error))
    except RuntimeError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    height, width = settings.size
    print(f"\n{settings.model}, {height} x {width} px, batch {settings.batch}, PGD of {settings.n_iter} iterations")
    print(f"{where['versions']}; {where['threads']} threads; {options.repeats} rounds\n\n{table(times, RATIOS)}")
    if options.json is not None:
        found = {variant: asdict(measured) for variant, measured in times.items()}
        result = {**asdict(settings), "variants": found, "ratios": ratios(times, RATIOS), "missing": missing}
        options.json.write_text(json.dumps({**where, "results": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
