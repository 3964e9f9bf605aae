"""The paper's three claims on ten classes of photographs: initialisation and augmentation, stems, test resolution.

Singh, Croce and Hein (2023) find on ImageNet that (a) a strong clean start, heavy augmentation and longer training each
make adversarially trained models more robust; (b) a ConvStem in place of the PatchStem raises accuracy and, above all,
robustness to the threat models that training has not seen; (c) more pixels at test time than in training raise
robustness, up to a point, and a ConvStem decays later. This is how far they hold on Imagenette, scaled down.

    python recipes/imagenette_study.py --data FOLDER                     # everything: about a day on one core
    python recipes/imagenette_study.py --data FOLDER --family vit        # half of it, on one core, say
    timeout 500 python recipes/imagenette_study.py --data FOLDER --scale gpu      # a visit to a GPU; again goes on
    python recipes/imagenette_study.py --list                            # what there is to do, and what is done
    python recipes/imagenette_study.py --scale smoke                     # minutes, on the bundled photographs

FOLDER holds imagenette-train-128.tar and imagenette-val-192.tar (or folders of these names without .tar). It goes on
where it was stopped, killed even. Settings, seeds and tests were fixed beforehand: recipes/results/imagenette/plan.md.
recipes/imagenette_figures.py makes the tables and figures from the JSON.
"""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_robust.cli.command import CommandParser, run

if TYPE_CHECKING:
    from keras_robust.recipes import Recipe

RESULTS = Path(__file__).parent / "results" / "imagenette"
PATCH, CONV = "patchstem", "convstem"
# Rung of the ladder -> augmentation, whether from the clean model, whether of the longer training.
RUNGS = {
    "random": ("basic", False, False),
    "pretrained": ("basic", True, False),
    "heavy": ("heavy", True, False),
    "long": ("heavy", True, True),
}
LAST = "long"
# Part of the evaluation -> whether of the last rung alone, and whether of the first seed alone.
PARTS = {"trained": (False, False), "unseen": (True, False), "resolutions": (True, True), "standard": (True, True)}


@dataclass(frozen=True)
class Scale:
    """One size of the study.

    Attributes:
        families: family -> its architecture with a PatchStem; with a ConvStem it has `_convstem` in its name.
        resolution: of training, in pixels.
        batch_size: images.
        clean_policy: augmentation of clean training.
        clean_epochs, stem_epochs: clean training of the PatchStem model, and of a new ConvStem on top of it.
        short_epochs, long_epochs: adversarial training.
        seeds: of the last rung; the others have the first alone. All start from the clean models of the first.
        n_examples: validation images that are attacked.
        few_examples: how many at the test resolutions, and by AutoAttack `standard`.
        every: epochs between two validations.
        precision: of training.
        tests: test resolutions over that of training.
        steps_per_epoch: None for all of the data.
        layer_scale: family -> where its layer scale starts: at the published 1e-6 a net of few steps learns next to
            nothing.
    """

    families: dict[str, str]
    resolution: int
    batch_size: int
    clean_policy: str
    clean_epochs: int
    stem_epochs: int
    short_epochs: int
    long_epochs: int
    seeds: tuple[int, ...] = (0, 1, 2)
    n_examples: int = 500
    few_examples: int = 200
    every: int = 4
    precision: str = "float32"
    tests: tuple[float, ...] = (0.75, 1, 1.25, 1.5, 2, 3)
    steps_per_epoch: int | None = None
    layer_scale: Mapping[str, float] = field(default_factory=lambda: {"convnext": 0.1})


SCALES = {
    "cpu": Scale({"convnext": "convnext_atto", "vit": "vit_tiny"}, 48, 64, "basic", 30, 10, 4, 12),
    "gpu": Scale(
        {"convnext": "convnext_tiny", "vit": "vit_small"}, 96, 128, "heavy", 200, 50, 50, 200,
        n_examples=1000, few_examples=1000, every=25, precision="mixed_bfloat16",
    ),
    "smoke": Scale(
        {"convnext": "convnext_atto", "vit": "vit_tiny"}, 32, 8, "basic", 1, 1, 1, 2,
        seeds=(0,), n_examples=8, few_examples=8, every=2, tests=(1, 1.5), steps_per_epoch=2,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One model of the study: `stage` is "clean" or a rung of the ladder."""

    family: str
    stem: str
    stage: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.family}-{self.stem}-{self.stage}-{self.seed}"


def cells(scale: Scale, families: list[str]) -> Iterator[Cell]:
    """All models, each after those that it starts from; the first seed first."""
    for seed in scale.seeds:
        for family in families:
            for stem in (PATCH, CONV):
                for stage in ("clean", *RUNGS) if seed == scale.seeds[0] else (LAST,):
                    yield Cell(family, stem, stage, seed)


def steps(scale: Scale, families: list[str]) -> Iterator[tuple[Cell, str]]:
    """All there is to do, what decides most first: `train` or a part of the evaluation, of each model."""
    every = list(cells(scale, families))
    for parts in (("train", "trained", "unseen"), ("resolutions",), ("standard",)):
        for cell in every:
            for part in parts:
                last, first = PARTS.get(part, (False, False))
                if part == "train" or (
                    cell.stage != "clean"
                    and (cell.stage == LAST or not last)
                    and (cell.seed == scale.seeds[0] or not first)
                ):
                    yield cell, part


def start(cell: Cell, scale: Scale) -> Cell | None:
    """The clean model that a cell's training starts from, if any."""
    clean = cell.stage == "clean"
    if (clean and cell.stem == PATCH) or (not clean and not RUNGS[cell.stage][1]):
        return None
    return Cell(cell.family, PATCH if clean else cell.stem, "clean", scale.seeds[0])


def recipe(cell: Cell, scale: Scale, data: Path | None, runs: Path) -> "Recipe":
    """The training of a cell: the published recipe at this scale."""
    from keras_robust.recipes import (
        AttackConfig,
        DataConfig,
        EvaluationConfig,
        ModelConfig,
        Recipe,
        StartConfig,
        TrainingConfig,
    )

    clean = cell.stage == "clean"
    policy, _, longer = RUNGS.get(cell.stage, (scale.clean_policy, False, False))
    epochs = scale.long_epochs if longer else scale.short_epochs
    if clean:
        epochs = scale.stem_epochs if cell.stem == CONV else scale.clean_epochs
    source = start(cell, scale)
    train, val = ("photo_crops", None) if data is None else (located(data, "train-128"), located(data, "val-192"))
    return Recipe(
        cell.name,
        ModelConfig(
            scale.families[cell.family] + ("_convstem" if cell.stem == CONV else ""),
            layer_scale_init=scale.layer_scale.get(cell.family),
        ),
        StartConfig(
            weights=str(runs / source.name / "model_ema.keras") if source else None,
            new=("stem",) if clean and cell.stem == CONV else (),
        ),
        DataConfig(train, val, policy=policy, resolution=scale.resolution, batch_size=scale.batch_size),
        TrainingConfig(
            epochs, scale.steps_per_epoch, learning_rate=1e-3, warmup_epochs=max(1, epochs // 8), ema_decay=0.99,
            precision=scale.precision, seed=cell.seed,
        ),
        AttackConfig("none" if clean else "apgd", norms=("Linf",), eps=(4 / 255,), n_iter=2),
        EvaluationConfig(scale.n_examples, n_iter=10, every=scale.every, batch_size=min(100, scale.n_examples)),
    )  # fmt: skip


def located(data: Path, part: str) -> str:
    """The archive or folder of a part of Imagenette."""
    for name in (f"imagenette-{part}.tar", f"imagenette-{part}"):
        if (data / name).exists():
            return str(data / name)
    raise ValueError(f"data must be a folder with imagenette-{part}.tar or imagenette-{part}/; received {data}.")


def train(cell: Cell, scale: Scale, data: Path | None, runs: Path) -> None:
    """Train a cell to its end; note whether training broke, and how long it took but for sessions that were killed."""
    from keras_robust import recipes
    from keras_robust.files import write_text

    folder = runs / cell.name
    notes = folder / "notes.json"
    before = json.loads(notes.read_text()) if notes.exists() else {"seconds": 0.0}
    if "done" in before:
        return
    started, after = time.monotonic(), {}
    try:
        recipes.train(recipe(cell, scale, data, runs), folder)
        after = {"done": True}
    except recipes.TrainingBroken as error:
        after = {"done": True, "broken": str(error)}
    finally:
        if folder.is_dir():
            seconds = before["seconds"] + time.monotonic() - started
            write_text(notes, json.dumps({"seconds": round(seconds, 1), **after}) + "\n")


def evaluate(part: str, cell: Cell, scale: Scale, data: Path | None, runs: Path, results: Path) -> None:
    """Attack a cell's final averaged weights, and add what was found to the cell's file in `results`."""
    import keras

    import keras_robust as kr
    from keras_robust.files import write_text
    from keras_robust.versions import installed_versions

    path = results / f"{cell.name}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if part in found:
        return
    folder, side = runs / cell.name, scale.resolution
    notes = json.loads((folder / "notes.json").read_text())
    weights = folder / "model_ema.keras"
    model = kr.export.load_model(str(weights)) if weights.exists() else kr.recipes.load_run(folder)
    images = "photo_crops" if data is None else located(data, "val-192")
    linf = kr.ThreatModel("Linf", 4 / 255)
    # Radii of the other norms as the field scales them, with the side: from L2 2 and L1 75 at 224 px.
    others = [kr.ThreatModel("L2", 2 * side / 224), kr.ThreatModel("L1", 75 * side / 224)]
    threats: list[Any] = {"trained": [linf], "unseen": others}.get(part, [linf, *others])
    attack: Any = "standard" if part == "standard" else "short"
    sides, n_examples = [side], scale.n_examples if part in ("trained", "unseen") else scale.few_examples
    if part == "resolutions":
        threats = [kr.ThreatModel("Linf", eps / 255) for eps in (4, 6, 8)]
        sides = [round(factor * side) for factor in scale.tests]
        own: dict[str, Any] = {"n_iter": 25, "random_start": True, "returns": "misclassified"}
        attack = [
            kr.attacks.APGD(linf, **own),
            kr.attacks.APGD(linf, loss="targeted-dlr", n_target_classes=3, **own),
        ]
    if data is None:
        attack = [kr.attacks.APGD(linf, n_iter=2, returns="misclassified")]
    report = kr.evaluation.evaluate(
        model, images, threats, sides, attack, n_examples, out=folder / part, batch_size=100, crop_pct=1.0,
        name=cell.name,
    )  # fmt: skip
    assert report is not None
    found |= {
        **asdict(cell),
        "recipe": json.loads(recipe(cell, scale, None, Path("runs")).to_json()),
        "training": {**notes, "history": json.loads((folder / "history.json").read_text())},
        part: [row(result) for result in report.results],
        "versions": installed_versions(("keras_robust", "keras", keras.backend.backend())),
        "device": device(),
    }
    write_text(path, json.dumps(found, indent=1) + "\n")


def row(result: Any) -> dict[str, Any]:
    """A line of the results: counts of images, and which are robust, as a string of 0 and 1, for paired tests."""
    return {
        "norm": result.threat.norm,
        "eps": result.threat.eps,
        "resolution": result.resolution,
        "n": result.clean.n,
        "clean": result.clean.successes,
        "robust": result.robust.successes,
        "accuracy_after": {name: round(float(share), 4) for name, share in result.accuracy_after.items()},
        "is_robust": "".join("01"[int(each)] for each in result.is_robust),
    }


def device() -> str:
    """What it ran on: the card's name, as the driver tells it, or the number of cores."""
    import keras_robust as kr

    if kr.training.distribution.start("single", verbose=False).hardware == "GPU":
        query = ("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    return f"{os.cpu_count()} CPU cores"


def study(options: Any) -> None:
    scale = SCALES[options.scale]
    runs, results = options.out / options.scale, options.results / options.scale
    every = list(steps(scale, options.family or list(scale.families)))
    open_steps = [(cell, part) for cell, part in every if not done(part, cell, runs, results)]
    # What is evaluated is not trained again where the runs are gone, unless something starts from it.
    wanted = {cell for cell, part in open_steps if part != "train"}
    for cell, part in reversed(open_steps):
        if part == "train" and cell in wanted and (source := start(cell, scale)):
            wanted.add(source)
    todo = [(cell, part) for cell, part in open_steps if cell in wanted]
    if options.list:
        for cell, part in every:
            print(f"{'    ' if (cell, part) in todo else 'done'}  {cell.name} {part}")
        return
    data = None if options.scale == "smoke" else options.data
    if data is None and options.scale != "smoke":
        raise ValueError("data must be the folder of Imagenette's archives; received none.")
    import keras

    results.mkdir(parents=True, exist_ok=True)
    for number, (cell, part) in enumerate(todo, start=1):
        print(f"\n[{number}/{len(todo)}] {cell.name} {part}", flush=True)
        if part == "train":
            train(cell, scale, data, runs)
        else:
            evaluate(part, cell, scale, data, runs, results)
        keras.backend.clear_session()
        gc.collect()


def done(part: str, cell: Cell, runs: Path, results: Path) -> bool:
    """Whether a step has been made."""
    path = runs / cell.name / "notes.json" if part == "train" else results / f"{cell.name}.json"
    return path.exists() and ("done" if part == "train" else part) in json.loads(path.read_text())


def parser() -> CommandParser:
    parser = CommandParser("study", __doc__)
    parser.prog = "imagenette_study.py"
    parser.add_argument("--data", type=Path, help="folder of Imagenette's two archives")
    parser.add_argument("--scale", choices=tuple(SCALES), default="cpu", help="(default: cpu)")
    parser.add_argument("--family", nargs="+", choices=("convnext", "vit"), help="(default: both)")
    parser.add_argument("--out", type=Path, default=Path("runs/imagenette_study"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON (default: beside this file)")
    parser.add_argument("--list", action="store_true", help="show all models and what is done")
    parser.add_backend()
    return parser


if __name__ == "__main__":
    own = parser()
    sys.exit(run(own, study, own.parse_args(), goes_on="; the same command goes on from here"))
