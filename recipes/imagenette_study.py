"""The paper's three claims on ten classes of photographs: initialisation and augmentation, stems, test resolution.

Singh, Croce and Hein (2023) find on ImageNet that (a) a strong clean start, heavy augmentation and longer training each
make adversarially trained models more robust; (b) a ConvStem in place of the PatchStem raises accuracy and, above all,
robustness to the threat models that training has not seen; (c) more pixels at test time than in training raise
robustness, up to a point, and a ConvStem decays later. This is how far they hold on Imagenette, scaled down.

    python recipes/imagenette_study.py --data FOLDER                     # everything: about nine hours on two cores
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
    from keras_robust.evaluation import Report
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
COMPARED = 3  # stages: no attack, and the two of AutoAttack `short`, with which `standard` begins


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
        seeds: of the last rung; the others have the first alone.
        n_examples: validation images that are attacked.
        curve_examples: of those, how many at the test resolutions.
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
    curve_examples: int = 200
    every: int = 4
    precision: str = "float32"
    tests: tuple[float, ...] = (0.75, 1, 1.25, 1.5, 2, 3)
    steps_per_epoch: int | None = None
    layer_scale: Mapping[str, float] = field(default_factory=lambda: {"convnext": 0.1})


SCALES = {
    "cpu": Scale({"convnext": "convnext_atto", "vit": "vit_tiny"}, 48, 64, "basic", 30, 10, 4, 16),
    "gpu": Scale(
        {"convnext": "convnext_tiny", "vit": "vit_small"}, 96, 128, "heavy", 200, 50, 50, 200,
        n_examples=1000, curve_examples=1000, every=25, precision="mixed_bfloat16",
    ),
    "smoke": Scale(
        {"convnext": "convnext_atto", "vit": "vit_tiny"}, 32, 8, "basic", 1, 1, 1, 2,
        seeds=(0,), n_examples=8, curve_examples=8, every=2, tests=(1, 1.5), steps_per_epoch=2,
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
                for stage in ("clean", *(RUNGS if seed == scale.seeds[0] else (LAST,))):
                    yield Cell(family, stem, stage, seed)


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
    policy, from_clean, longer = RUNGS.get(cell.stage, (scale.clean_policy, cell.stem == CONV, False))
    epochs = scale.long_epochs if longer else scale.short_epochs
    if clean:
        epochs = scale.stem_epochs if cell.stem == CONV else scale.clean_epochs
    source = Cell(cell.family, PATCH if clean else cell.stem, "clean", cell.seed)
    train, val = ("photo_crops", None) if data is None else (located(data, "train-128"), located(data, "val-192"))
    return Recipe(
        cell.name,
        ModelConfig(
            scale.families[cell.family] + ("_convstem" if cell.stem == CONV else ""),
            layer_scale_init=scale.layer_scale.get(cell.family),
        ),
        StartConfig(
            weights=str(runs / source.name / "model_ema.keras") if from_clean else None,
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


def evaluate(cell: Cell, scale: Scale, data: Path | None, runs: Path, results: Path) -> None:
    """Attack a cell's final averaged weights, and write what was found to `results`."""
    import keras

    import keras_robust as kr
    from keras_robust.files import write_text
    from keras_robust.versions import installed_versions

    path = results / f"{cell.name}.json"
    if path.exists() or cell.stage == "clean":
        return
    folder, side = runs / cell.name, scale.resolution
    notes = json.loads((folder / "notes.json").read_text())
    weights = folder / "model_ema.keras"
    model = kr.export.load_model(str(weights)) if weights.exists() else kr.recipes.load_run(folder)
    images = "photo_crops" if data is None else located(data, "val-192")
    first = cell.seed == scale.seeds[0]
    smoke = data is None
    linf = kr.ThreatModel("Linf", 4 / 255)
    # Radii of the other norms as the field scales them, with the side: from L2 2 and L1 75 at 224 px.
    others = [kr.ThreatModel("L2", 2 * side / 224), kr.ThreatModel("L1", 75 * side / 224)]
    options: dict[str, Any] = {"batch_size": 100, "crop_pct": 1.0, "name": cell.name}

    def attack(part: str, threats: Any, resolutions: Any, attack: Any, n_examples: int) -> "Report":
        out = folder / part
        report = kr.evaluation.evaluate(model, images, threats, resolutions, attack, n_examples, out=out, **options)
        assert report is not None
        return report

    attacks: Any = [kr.attacks.APGD(linf, n_iter=2, returns="misclassified")]
    version = "standard" if first and cell.stage == LAST else "short"
    threats = [linf, *others] if cell.stage == LAST else [linf]
    found = {
        "threats": attack("evaluation", threats, [side], attacks if smoke else version, scale.n_examples),
    }
    if first and cell.stage == LAST:
        if not smoke:
            attacks = [
                kr.attacks.APGD(linf, n_iter=50, random_start=True, returns="misclassified"),
                kr.attacks.APGD(
                    linf, n_iter=50, random_start=True, returns="misclassified", loss="targeted-dlr",
                    n_target_classes=3,
                ),
            ]  # fmt: skip
        radii = [kr.ThreatModel("Linf", eps / 255) for eps in (4, 6, 8)]
        sides = [round(factor * side) for factor in scale.tests]
        found["resolutions"] = attack("curve", radii, sides, attacks, scale.curve_examples)
    write_text(
        path,
        json.dumps(
            {
                **asdict(cell),
                "recipe": json.loads(recipe(cell, scale, None, Path("runs")).to_json()),
                "training": {**notes, "history": json.loads((folder / "history.json").read_text())},
                "attack": "APGD-2" if smoke else version,
                **{part: [row(result) for result in report.results] for part, report in found.items()},
                "versions": installed_versions(("keras_robust", "keras", keras.backend.backend())),
                "device": device(),
            },
            indent=1,
        )
        + "\n",
    )


def row(result: Any) -> dict[str, Any]:
    """A line of the results: counts of images, and which are robust, as a string of 0 and 1, for paired tests.

    `robust` is that under the first two attacks, AutoAttack `short`, alike for all models; `robust_to_all` under all
    that ran, AutoAttack `standard` where it did.
    """
    alike = result.misclassified_at >= min(len(result.stages), COMPARED)
    return {
        "norm": result.threat.norm,
        "eps": result.threat.eps,
        "resolution": result.resolution,
        "n": result.clean.n,
        "clean": result.clean.successes,
        "robust": int(alike.sum()),
        "robust_to_all": result.robust.successes,
        "accuracy_after": {name: round(float(share), 4) for name, share in result.accuracy_after.items()},
        "is_robust": "".join("01"[int(each)] for each in alike),
    }


def device() -> str:
    """What it ran on: the card's name, as the driver tells it, or the number of cores."""
    import keras

    if keras.distribution.list_devices()[0].startswith("gpu"):
        query = ("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    return f"{os.cpu_count()} CPU cores"


def study(options: Any) -> None:
    scale = SCALES[options.scale]
    runs, results = options.out / options.scale, options.results / options.scale
    todo = list(cells(scale, options.family or list(scale.families)))
    if options.list:
        for cell in todo:
            done = (results / f"{cell.name}.json").exists() or (
                cell.stage == "clean" and (runs / cell.name / "model_ema.keras").exists()
            )
            print(f"{'done' if done else '    '}  {cell.name}")
        return
    data = None if options.scale == "smoke" else options.data
    if data is None and options.scale != "smoke":
        raise ValueError("data must be the folder of Imagenette's archives; received none.")
    import keras

    results.mkdir(parents=True, exist_ok=True)
    for number, cell in enumerate(todo, start=1):
        print(f"\n[{number}/{len(todo)}] {cell.name}", flush=True)
        train(cell, scale, data, runs)
        evaluate(cell, scale, data, runs, results)
        keras.backend.clear_session()
        gc.collect()


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
