"""What the full recipe adds to a training step: averaged weights, diagnostics, logs.

Times a clean step, the bare adversarial step and the step of a recipe (weight-decay groups, schedule, moving averages,
attack gain and zero gradients, one point in TensorBoard after every step where a run writes one every 50), in turn.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import timing

EXAMPLES = """\
examples:
  python tools/training_overhead.py --model convnext_tiny_convstem --resolution 64 --batch 16
  python tools/training_overhead.py --model vit_small_convstem --backend torch --repeats 40
"""
CLASSES = 1000
RATIOS = (("recipe", "clean"), ("adversarial", "clean"), ("recipe", "adversarial"))


def step_of(settings, kind):
    os.environ["KERAS_BACKEND"] = settings.backend
    import keras
    import numpy as np

    from keras_robust import recipes, training
    from keras_robust.recipes.build import build_attacks, build_model, build_trainer
    from keras_robust.training.tensorboard import TensorBoardWriter

    recipe = recipes.Recipe(
        "overhead",
        recipes.ModelConfig(settings.model),
        data=recipes.DataConfig(resolution=settings.resolution, batch_size=settings.batch),
        training=recipes.TrainingConfig(precision="float32"),
        attack=recipes.AttackConfig(n_iter=settings.n_iter),
    )
    model = build_model(recipe, CLASSES)
    if kind == "recipe":
        trainer = build_trainer(recipe, model, 1000)
    else:
        trainer = training.AdversarialModel(model, build_attacks(recipe)[0]) if kind == "adversarial" else model
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        trainer.compile(keras.optimizers.AdamW(1e-3, weight_decay=0.05), loss)
    rng = np.random.default_rng(0)
    x = rng.random((settings.batch, settings.resolution, settings.resolution, 3), dtype="float32")
    y = np.eye(CLASSES, dtype="float32")[rng.integers(0, CLASSES, settings.batch)]
    board = TensorBoardWriter(Path(tempfile.mkdtemp())) if kind == "recipe" else None

    def step():
        logs = trainer.train_on_batch(x, y, return_dict=True)
        if board is not None:
            board.scalars("train", {name: float(value) for name, value in logs.items()}, 0)

    return step


def clean_step(settings):
    return step_of(settings, "clean")


def adversarial_step(settings):
    return step_of(settings, "adversarial")


def recipe_step(settings):
    return step_of(settings, "recipe")


@dataclass(frozen=True)
class Settings:
    """What is timed."""

    model: str
    resolution: int
    batch: int
    backend: str
    n_iter: int


def main(arguments=None):
    parser = timing.Parser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--model", default="convnext_tiny_convstem", help="of kr.models.names() (%(default)s)")
    parser.add_argument("--resolution", type=timing.positive, default=64, help="side of the images (%(default)s)")
    parser.add_argument("--batch", type=timing.positive, default=16, help="images per step (%(default)s)")
    parser.add_argument("--n-iter", type=timing.positive, default=2, help="iterations of the attack (%(default)s)")
    options = parser.parse_args(arguments)
    settings = Settings(options.model, options.resolution, options.batch, options.backend, options.n_iter)
    variants = {"clean": clean_step, "adversarial": adversarial_step, "recipe": recipe_step}
    try:
        times, _ = timing.measure(variants, settings, options.repeats, options.threads)
    except ValueError as error:
        parser.error(str(error))
    print(f"{settings.model}, {settings.resolution} px, batch {settings.batch}, {options.repeats} rounds\n")
    print(timing.table(times, RATIOS))
    if options.json is not None:
        record = {"ratios": timing.ratios(times, RATIOS), "seconds": {v: t.seconds for v, t in times.items()}}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
