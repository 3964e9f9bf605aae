"""Table, figure and verdict of the CamVid experiment, from its JSON.

    python recipes/camvid_figures.py                  # of recipes/results/camvid/cpu
    python recipes/camvid_figures.py --scale smoke

It writes radii.svg and .png, and summary.md, beside the JSON. What is not there yet is left out. How the claim is
decided stands in recipes/results/camvid/plan.md.
"""

import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_robust.cli.command import CommandParser, run

if TYPE_CHECKING:
    from keras_robust.statistics import OverSeeds

RESULTS = Path(__file__).parent / "results" / "camvid"
WAYS = {
    "clean": "clean",
    "adversarial": "adversarial",
    "robust-backbone": "adversarial, robust backbone",
}
CLEAN = "clean"
FIGURES = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy"}


class Experiment:
    """All results of one scale, by way and seed."""

    def __init__(self, folder: Path) -> None:
        found = [json.loads(path.read_text()) for path in sorted(folder.glob("*-*.json"))]
        if not found:
            raise ValueError(f"scale must be one that was run; {folder} holds no results.")
        for name in ("scale", "backbone"):
            # Trainings from random weights have no backbone.
            values = {json.dumps(cell[name]) for cell in found if cell[name] is not None}
            if len(values) > 1:
                raise ValueError(f"results must be of one {name}; those in {folder} are of {' and '.join(values)}.")
        found.sort(key=lambda cell: (list(WAYS).index(cell["way"]), cell["seed"]))
        self.cells = {(cell["way"], cell["seed"]): cell for cell in found}
        self.threats = list(found[0]["sea"]["threats"])
        path = folder / "classifier.json"
        self.classifier = json.loads(path.read_text()) if path.exists() else None

    def seeds(self, *ways: str) -> list[int]:
        """Those that all of these ways have."""
        return [seed for way, seed in self.cells if way == ways[0] and all((w, seed) in self.cells for w in ways)]

    def share(self, way: str, seed: int, threat: str, figure: str) -> float:
        sea = self.cells[way, seed]["sea"]
        return (sea[CLEAN] if threat == CLEAN else sea["threats"][threat]["worst"])[figure]

    def over_seeds(self, way: str, threat: str, figure: str) -> "OverSeeds":
        from keras_robust.statistics import OverSeeds

        return OverSeeds(tuple(self.share(way, seed, threat, figure) for seed in self.seeds(way)))


def table(experiment: Experiment) -> Iterable[str]:
    """A row for each way: mean over the seeds, and each, in %."""
    columns = [CLEAN, *experiment.threats]
    for figure, name in FIGURES.items():
        yield f"| {name} | " + " | ".join(columns) + " | training, min | SEA, min |"
        yield "| --- |" + " --- |" * (len(columns) + 2)
        for way, title in WAYS.items():
            if not (seeds := experiment.seeds(way)):
                continue
            cells = [str(experiment.over_seeds(way, threat, figure)) for threat in columns]
            found = [experiment.cells[way, seed] for seed in seeds]
            seconds = [[sum(cell["training"]["seconds"]) for cell in found], [cell["sea_seconds"] for cell in found]]
            cells += [f"{statistics.fmean(each) / 60:.0f}" for each in seconds]
            yield f"| {title} | {' | '.join(cells)} |"
        yield ""


def claim(experiment: Experiment) -> Iterable[str]:
    """The gain from a robust backbone: mean over the seeds, with the interval of Student's t."""
    from keras_robust.statistics import student_interval

    seeds = experiment.seeds("robust-backbone", "adversarial")
    for figure, name in FIGURES.items():
        for threat in (CLEAN, *experiment.threats):
            gains = [
                experiment.share("robust-backbone", seed, threat, figure)
                - experiment.share("adversarial", seed, threat, figure)
                for seed in seeds
            ]
            if len(gains) > 1:
                gain = points(statistics.fmean(gains), *student_interval(gains))
                yield f"- {name}, {threat}, {len(gains)} seeds: {gain}"


def points(difference: float, low: float, high: float) -> str:
    verdict = "holds" if low > 0 else "does not hold" if high < 0 else "not decided"
    return f"{100 * difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}): {verdict}"


def longer(experiment: Experiment) -> Iterable[str]:
    """What more iterations take off, on the same images at 4/255."""
    for (way, seed), cell in experiment.cells.items():
        if (check := cell.get("longer")) is None:
            continue
        threat = next(name for name in check["images"] if name not in ("counted", CLEAN))
        rows, n_iter = check["rows"], check["n_iter"]
        counted = sum(check["images"]["counted"])
        short = sum(cell["images"][threat][row] for row in rows) / counted
        found = sum(check["images"][threat]) / counted
        yield (
            f"- {WAYS[way]}, seed {seed}, {len(rows)} images, {threat}: pixel accuracy {100 * short:.1f} as in the "
            f"table, {100 * found:.1f} with {n_iter} iterations for each attack"
        )


def warnings(experiment: Experiment) -> Iterable[str]:
    for (way, seed), cell in experiment.cells.items():
        yield from (f"- {WAYS[way]}, seed {seed}: {text}" for text in cell["sea"]["warnings"])


def figure(experiment: Experiment, folder: Path) -> None:
    from keras_robust.evaluation.reporting.charts import Line, Panel, write_chart

    def radius(threat: str) -> float:
        return 0.0 if threat == CLEAN else float(threat.rsplit(":", 1)[1].split("/")[0])

    panels = []
    columns = [CLEAN, *experiment.threats]
    ticks = [(radius(threat), f"{radius(threat):g}") for threat in columns]
    for figure, name in FIGURES.items():
        lines = [
            Line(title, style, [(radius(each), experiment.over_seeds(way, each, figure)) for each in columns])
            for style, (way, title) in enumerate(WAYS.items())
            if experiment.seeds(way)
        ]
        panels.append(Panel(name, "Linf radius, of 255", lines, ticks))
    for kind in ("svg", "png"):
        write_chart(panels, folder / f"radii.{kind}")


def settings(experiment: Experiment) -> Iterable[str]:
    (cell, *_) = experiment.cells.values()
    height, width = cell["recipe"]["size"]
    sea = cell["sea"]
    yield (
        f"{height} x {width} px, {cell['recipe']['epochs']} epochs; SEA of {sea['settings']['n_iter']} iterations for "
        f"each of its three attacks on {sea['n_examples']} test images. Of several seeds the mean, in brackets each."
    )
    if experiment.classifier is not None:
        minutes = experiment.classifier["seconds"] / 60
        yield f"The robust classifier took {minutes:.0f} min, which the third way has on top, once for all seeds."


def summary(options: Any) -> None:
    folder = options.results / options.scale
    experiment = Experiment(folder)
    figure(experiment, folder)
    parts = [
        ("Figures, in %", [*settings(experiment), "", *table(experiment)]),
        ("A robust backbone makes segmentation models more robust, for the same training", claim(experiment)),
        ("A longer attack", longer(experiment)),
        ("Warnings", warnings(experiment)),
    ]
    text = "\n\n".join(f"## {heading}\n\n" + ("\n".join(lines).strip() or "None.") for heading, lines in parts)
    from keras_robust.files import write_text

    write_text(folder / "summary.md", f"# CamVid, {options.scale}\n\n{text}\n")
    print(text)


def parser() -> CommandParser:
    parser = CommandParser("figures", __doc__)
    parser.prog = "camvid_figures.py"
    parser.add_argument("--scale", default="cpu", help="folder of the results (default: cpu)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the scales (default: beside this)")
    return parser


if __name__ == "__main__":
    own = parser()
    sys.exit(run(own, summary, own.parse_args()))
