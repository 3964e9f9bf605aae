"""What a robust backbone is worth to robust segmentation, on street scenes (CamVid).

Croce, Singh and Hein (2024) find that adversarial training of segmentation models from robust classifiers (PIR-AT)
gives more robust ones than from other weights, for the same training. This is how far it holds on CamVid, scaled down:
UPerNet on the `convnext_atto_convstem`, trained `clean`; `adversarial`, from random weights; and `robust-backbone`,
adversarially from a robust classifier, which is trained first, on Imagenette. Each is evaluated by SEA.

    python recipes/camvid.py --data FOLDER                             # everything
    python recipes/camvid.py --data FOLDER --ways robust-backbone      # half of the work, on one core, say
    python recipes/camvid.py --data FOLDER --backbone best.keras       # from another robust convnext_atto_convstem
    python recipes/camvid.py --list                                    # what there is to do, how long, what is done
    python recipes/camvid.py --scale smoke                             # minutes, on drawn scenes

FOLDER holds camvid/camvid-320x240.tar and imagenette/ with its two archives (or folders of these names without .tar).
It goes on where it was stopped, killed even: trainings after their last epoch, evaluations after their last batch.
Settings, seeds and tests were fixed beforehand: recipes/results/camvid/plan.md. recipes/camvid_figures.py makes the
table and the figure from the JSON.
"""

import gc
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_robust.cli.command import CommandParser, run

if TYPE_CHECKING:
    from keras_robust.recipes import Recipe
    from keras_robust.segmentation import SegmentationRecipe, SegmentationReport

RESULTS = Path(__file__).parent / "results" / "camvid"
BACKBONE = "convnext_atto_convstem"
CLASSIFIER = "classifier"
CLEAN, ADVERSARIAL, ROBUST = "clean", "adversarial", "robust-backbone"
WAYS = (CLEAN, ADVERSARIAL, ROBUST)
CHECKED_RADIUS = 4  # under Linf, of 255
CLASSES = 11
# Multiply-adds per second of one core: measured (plan.md), for the predicted times of --list.
TRAINING_RATE, ATTACK_RATE, CLASSIFIER_RATE = 27e9, 28e9, 19e9
CLASSIFIER_PASSES, ATTACKS = 8, 3  # APGD of 2 steps; those of SEA
COMPILING = 10.0  # seconds, of a training or an attack


@dataclass(frozen=True)
class Scale:
    """One size of the experiment.

    Attributes:
        size: height and width, in pixels.
        epochs, warmup_epochs, batch_size: of the trainings of segmentation.
        seeds: of these.
        n_examples: test images that are attacked, evenly spaced.
        n_iter: gradient steps of each attack of SEA.
        checked, checked_n_iter: of the first seed, so many of these images also meet a longer SEA at 4/255.
        classifier_resolution, classifier_epochs, classifier_batch_size: of the robust classifier.
        steps_per_epoch: of the classifier; None for all of its data.
        radii: of SEA under Linf, of 255.
    """

    size: tuple[int, int]
    epochs: int
    warmup_epochs: int
    batch_size: int
    seeds: tuple[int, ...]
    n_examples: int
    n_iter: int
    checked: int
    checked_n_iter: int
    classifier_resolution: int
    classifier_epochs: int
    classifier_batch_size: int = 64
    steps_per_epoch: int | None = None
    radii: tuple[int, ...] = (2, 4, 8)


SCALES = {
    "cpu": Scale(
        (72, 96), epochs=30, warmup_epochs=6, batch_size=8, seeds=(0, 1, 2),
        n_examples=50, n_iter=50, checked=10, checked_n_iter=300,
        classifier_resolution=64, classifier_epochs=12,
    ),
    "smoke": Scale(
        (32, 48), epochs=2, warmup_epochs=1, batch_size=4, seeds=(0,),
        n_examples=4, n_iter=3, checked=2, checked_n_iter=6,
        classifier_resolution=32, classifier_epochs=1, classifier_batch_size=8, steps_per_epoch=2,
        radii=(CHECKED_RADIUS,),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One model of the experiment: `way` is one of `WAYS`, or "classifier"."""

    way: str
    seed: int

    @property
    def name(self) -> str:
        return self.way if self.way == CLASSIFIER else f"{self.way}-{self.seed}"


def cells(scale: Scale, ways: list[str], backbone: Path | None) -> Iterator[Cell]:
    """All models, each after the one that it starts from; the first seed first."""
    if ROBUST in ways and backbone is None:
        yield Cell(CLASSIFIER, 0)
    for seed in scale.seeds:
        for way in WAYS:
            if way in ways:
                yield Cell(way, seed)


def classifier_recipe(scale: Scale, data: Path | None) -> "Recipe":
    """The training of the robust classifier: the published one at this scale."""
    from keras_robust.recipes import AttackConfig, DataConfig, EvaluationConfig, ModelConfig, Recipe, TrainingConfig

    train, val = ("photo_crops", None)
    if data is not None:
        train, val = (located(data / "imagenette", f"imagenette-{part}") for part in ("train-128", "val-192"))
    return Recipe(
        CLASSIFIER,
        ModelConfig(BACKBONE, layer_scale_init=0.1),
        data=DataConfig(
            train, val, policy="basic", resolution=scale.classifier_resolution, batch_size=scale.classifier_batch_size
        ),
        training=TrainingConfig(
            scale.classifier_epochs, scale.steps_per_epoch, learning_rate=1e-3,
            warmup_epochs=max(1, scale.classifier_epochs // 8), ema_decay=0.99, seed=0,
        ),
        attack=AttackConfig("apgd", norms=("Linf",), eps=(4 / 255,), n_iter=2),
        evaluation=EvaluationConfig(200 if data else 8, n_iter=10, every=scale.classifier_epochs, batch_size=50),
    )  # fmt: skip


def segmentation_recipe(cell: Cell, scale: Scale) -> "SegmentationRecipe":
    from keras_robust.segmentation import SegmentationRecipe

    return SegmentationRecipe(
        f"upernet_{BACKBONE}", CLASSES, scale.size, scale.epochs, scale.warmup_epochs, scale.batch_size,
        learning_rate=1e-3, weight_decay=0.01, drop_path_rate=0.1, layer_scale_init=0.1,
        n_iter=0 if cell.way == CLEAN else 5, seed=cell.seed,
    )  # fmt: skip


def located(folder: Path, name: str) -> str:
    """The archive or folder of a data set."""
    for path in (folder / f"{name}.tar", folder / name):
        if path.exists():
            return str(path)
    raise ValueError(f"data must be a folder with {folder.name}/{name}.tar or {folder.name}/{name}/; there is none.")


def scenes(count: int, seed: int) -> list[Any]:
    """Drawn scenes for `--scale smoke`: ground, sky and boxes of three more classes; pairs of image and mask."""
    import numpy as np

    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        mask = np.zeros((60, 80), np.int32)
        mask[rng.integers(20, 40) :] = 3
        for label in (1, 5, 8):
            top, left = rng.integers(5, 45), rng.integers(0, 60)
            mask[top : top + 15, left : left + 18] = label
        colours = np.random.default_rng(0).uniform(30, 225, (CLASSES, 3))
        image = colours[mask] + rng.normal(0, 8, (*mask.shape, 3))
        pairs.append((image.clip(0, 255).astype(np.uint8), np.where(rng.random(mask.shape) < 0.02, -1, mask)))
    return pairs


def images(data: Path | None, split: str) -> tuple[Any, tuple[str, ...] | None]:
    """Pairs of image and mask of a split, and the names of the classes."""
    from keras_robust import segmentation

    if data is None:
        return scenes(8 if split == "train" else 4, seed=split == "test"), None
    source = segmentation.source(located(data / "camvid", "camvid-320x240"), split)
    return [source[i] for i in range(len(source))], source.class_names  # at most 85 MB


def train_classifier(scale: Scale, data: Path | None, runs: Path, results: Path) -> None:
    """Train the robust classifier to its end, and write how it went."""
    from keras_robust import recipes

    path = results / f"{CLASSIFIER}.json"
    if is_done(path, identity(scale)):
        return
    recipe = classifier_recipe(scale, data)
    _, seconds = timed(runs / CLASSIFIER, lambda: recipes.train(recipe, runs / CLASSIFIER))
    history = json.loads((runs / CLASSIFIER / "history.json").read_text())
    # The folders on this machine say nothing to others.
    names = {part: Path(place).name for part in ("source", "validation") if (place := getattr(recipe.data, part))}
    recipe = replace(recipe, data=replace(recipe.data, **names))
    write(path, {**identity(scale), "recipe": json.loads(recipe.to_json()), "seconds": seconds, "history": history})


def identity(scale: Scale, backbone: Path | None = None) -> dict[str, Any]:
    """What a result holds for: the scale, and the weights that a training began with, by file name and hash.

    Raises:
        ValueError: there are no such weights.
    """
    import keras_robust as kr

    weights = None
    if backbone is not None:
        if not backbone.is_file():
            raise ValueError(f"backbone must be a file with weights; there is no {backbone}.")
        weights = {"name": backbone.name, "sha256": kr.weights.sha256_of(backbone)}
    return json.loads(json.dumps({"scale": asdict(scale), "backbone": weights}))


def is_done(path: Path, wanted: dict[str, Any]) -> bool:
    """Whether a result is written.

    Raises:
        ValueError: it holds for another scale or other weights.
    """
    from keras_robust.evaluation.result_store import check_same
    from keras_robust.files import read_json

    if path.exists():
        there = read_json(path)
        check_same(wanted, {name: there.get(name) for name in wanted}, f"results holds {path.name} of other settings")
    return path.exists()


def timed(folder: Path, work: Callable[[], Any]) -> tuple[Any, float]:
    """What a piece of work gives, and its seconds: but for sessions that were killed, all of them."""
    from keras_robust.files import write_text

    notes = folder / "seconds.json"
    before, started = json.loads(notes.read_text()) if notes.exists() else 0.0, time.monotonic()
    try:
        found = work()
    finally:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(notes, json.dumps(round(before + time.monotonic() - started, 1)))
    return found, json.loads(notes.read_text())


def run_cell(cell: Cell, scale: Scale, backbone: Path, data: Path | None, runs: Path, results: Path) -> None:
    """Train and attack a segmentation model, and write what was found."""
    import numpy as np

    import keras_robust as kr

    path, folder = results / f"{cell.name}.json", runs / cell.name
    started_from = identity(scale, backbone if cell.way == ROBUST else None)
    if is_done(path, started_from):
        return
    recipe = segmentation_recipe(cell, scale)
    pairs, _ = images(data, "train")
    model = kr.segmentation.train(recipe, pairs, folder, backbone if cell.way == ROBUST else None)
    test, names = images(data, "test")
    rows = np.linspace(0, len(test) - 1, min(scale.n_examples, len(test))).round().astype(int)
    shown = [kr.segmentation.sources.resized_and_cropped(*test[row], scale.size) for row in rows]
    x, y = np.stack([image for image, _ in shown]), np.stack([mask for _, mask in shown])
    threats = [kr.ThreatModel("Linf", eps / 255) for eps in scale.radii]
    options: dict[str, Any] = {"batch_size": min(20, len(x)), "class_names": names}
    report, seconds = timed(
        folder / "sea",
        lambda: kr.segmentation.evaluate(model, x, y, threats, scale.n_iter, out=folder / "sea", **options),
    )
    found = {
        **asdict(cell),
        **started_from,
        "recipe": asdict(recipe),
        "training": json.loads((folder / "history.json").read_text()),
        "sea": report.as_dict(),
        "sea_seconds": seconds,
        "images": by_image(report),
    }
    if cell.seed == scale.seeds[0]:
        chosen = np.linspace(0, len(x) - 1, min(scale.checked, len(x))).round().astype(int)
        options["batch_size"] = min(20, len(chosen))
        threat = kr.ThreatModel("Linf", CHECKED_RADIUS / 255)
        longer = kr.segmentation.evaluate(
            model, x[chosen], y[chosen], [threat], scale.checked_n_iter, out=folder / "longer", **options
        )
        found["longer"] = {"rows": chosen.tolist(), "n_iter": scale.checked_n_iter, "images": by_image(longer)}
        results.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "sea" / "pictures.png", results / f"{cell.name}.png")
    write(path, found)


def by_image(report: "SegmentationReport") -> dict[str, list[int]]:
    """How many pixels of each image count, and are right: clean, and in the worst case of each threat model."""
    right = {each.threat.spec: each.worst_for_accuracy.right for each in report.threats}
    columns = {"counted": report.clean.labelled, "clean": report.clean.right, **right}
    return {name: counts.sum(1).tolist() for name, counts in columns.items()}


def write(path: Path, found: dict[str, Any]) -> None:
    import keras

    from keras_robust.files import write_text
    from keras_robust.versions import installed_versions

    versions = installed_versions(("keras_robust", "keras", keras.backend.backend()))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({**found, "versions": versions}, indent=1) + "\n")


def predicted(cell: Cell, scale: Scale) -> float:
    """Seconds of a cell on one core, from its multiply-adds and the measured rates."""
    import keras

    from keras_robust import models, segmentation

    with keras.StatelessScope(initialize_variables=False):
        if cell.way == CLASSIFIER:
            work = models.multiply_adds(models.create(BACKBONE, 10), scale.classifier_resolution)
            count = (scale.steps_per_epoch or 147) * scale.classifier_batch_size
            return work * CLASSIFIER_PASSES * count * scale.classifier_epochs / CLASSIFIER_RATE + 2 * COMPILING
        model = segmentation.create(f"upernet_{BACKBONE}", CLASSES)
        work = models.multiply_adds(model, scale.size)
    seconds = work * segmentation_recipe(cell, scale).passes * scale.epochs * 367 / TRAINING_RATE
    gradients, compiled = scale.n_examples * scale.n_iter * len(scale.radii), 1 + ATTACKS * len(scale.radii)
    if cell.seed == scale.seeds[0]:
        gradients, compiled = gradients + scale.checked * scale.checked_n_iter, compiled + ATTACKS
    return seconds + 2 * work * ATTACKS * gradients / ATTACK_RATE + compiled * COMPILING


def experiment(options: Any) -> None:
    scale = SCALES[options.scale]
    runs, results = options.out / options.scale, options.results / options.scale
    todo = list(cells(scale, options.ways, options.backbone))
    if options.list:
        total = 0.0
        for cell in todo:
            done, seconds = (results / f"{cell.name}.json").exists(), predicted(cell, scale)
            total += seconds
            print(f"{'done' if done else '    '}  {cell.name:20}{seconds / 60:6.1f} min on one core")
        print(f"      {'all':20}{total / 60:6.1f} min")
        return
    data = None if options.scale == "smoke" else options.data
    if data is None and options.scale != "smoke":
        raise ValueError("data must be the folder of CamVid and Imagenette; received none.")
    import keras

    for number, cell in enumerate(todo, start=1):
        print(f"\n[{number}/{len(todo)}] {cell.name}", flush=True)
        if cell.way == CLASSIFIER:
            train_classifier(scale, data, runs, results)
        else:
            backbone = options.backbone or runs / CLASSIFIER / "model_ema.keras"
            run_cell(cell, scale, backbone, data, runs, results)
        keras.backend.clear_session()
        gc.collect()


def parser() -> CommandParser:
    parser = CommandParser("camvid", __doc__)
    parser.prog = "camvid.py"
    parser.add_argument("--data", type=Path, help="folder of camvid/ and imagenette/")
    parser.add_argument("--backbone", type=Path, help=f"weights of a robust {BACKBONE} on raw pixels, to start from")
    parser.add_argument("--scale", choices=tuple(SCALES), default="cpu", help="(default: cpu)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="which trainings (default: all)")
    parser.add_argument("--out", type=Path, default=Path("runs/camvid"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON (default: beside this file)")
    parser.add_argument("--list", action="store_true", help="show all models, their predicted time and what is done")
    parser.add_backend()
    return parser


if __name__ == "__main__":
    own = parser()
    sys.exit(run(own, experiment, own.parse_args(), goes_on="; the same command goes on from here"))
