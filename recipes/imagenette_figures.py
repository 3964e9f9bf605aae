"""Tables, figures and verdicts of the Imagenette study, from its JSON.

    python recipes/imagenette_figures.py              # of recipes/results/imagenette/cpu
    python recipes/imagenette_figures.py --scale gpu

It writes ladder, stems and resolution as .svg and .png, and summary.md, beside the JSON. What is not there yet is left
out. How claims are decided stands in recipes/results/imagenette/plan.md.
"""

import json
import math
import statistics
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_robust.cli.command import CommandParser, run

if TYPE_CHECKING:
    from keras_robust.statistics import Paired

RESULTS = Path(__file__).parent / "results" / "imagenette"
FAMILIES = {"convnext": "ConvNeXt", "vit": "ViT"}
STEMS = {"patchstem": "PatchStem", "convstem": "ConvStem"}
RUNGS = ("random", "pretrained", "heavy", "long")
TRAINED = 4 / 255


class Study:
    """All results of one scale, by (family, stem, rung, seed)."""

    def __init__(self, folder: Path) -> None:
        found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        if not found:
            raise ValueError(f"scale must be one that was run; {folder} holds no results.")
        self.cells = {(cell["family"], cell["stem"], cell["stage"], cell["seed"]): cell for cell in found}

    def row(self, key: tuple[Any, ...], norm: str, part: str | None = None) -> Mapping[str, Any] | None:
        """The line of a model under a norm: from the part with the norm of training or those unseen, if not told."""
        part = part or ("trained" if norm == "Linf" else "unseen")
        rows = self.cells.get(key, {}).get(part, ())
        return next((row for row in rows if row["norm"] == norm), None)

    def seeds(self, family: str, stem: str) -> list[int]:
        return sorted(key[3] for key in self.cells if key[:3] == (family, stem, "long"))


def share(row: Mapping[str, Any], what: str = "robust") -> float:
    return row[what] / row["n"]


def paired(first: Mapping[str, Any], second: Mapping[str, Any]) -> "Paired":
    from keras_robust.statistics import Paired

    return Paired.of(*([each == "1" for each in row["is_robust"]] for row in (first, second)))


def verdict(low: float, high: float) -> str:
    return "holds" if low > 0 else "does not hold" if high < 0 else "not decided"


def points(difference: float, low: float, high: float) -> str:
    return f"{100 * difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}): {verdict(low, high)}"


# The claims.


def ladder(study: Study) -> Iterable[str]:
    for family, stem in models():
        rows = [study.row((family, stem, rung, 0), "Linf") for rung in RUNGS]
        for (before, first), (after, second) in zip(zip(RUNGS, rows), zip(RUNGS[1:], rows[1:])):
            if first and second:
                change = paired(first, second)
                yield f"- {title(family, stem)}, {before} -> {after}: {points(change.difference, *change.interval)}"


def stems(study: Study) -> Iterable[str]:
    from keras_robust.statistics import student_interval

    for family, name in FAMILIES.items():
        gains = {}
        for norm in ("clean", "Linf", "L2", "L1"):
            seeds = [seed for seed in study.seeds(family, "patchstem") if seed in study.seeds(family, "convstem")]
            differences = []
            for seed in seeds:
                patch, conv = (study.row((family, stem, "long", seed), norm.replace("clean", "Linf")) for stem in STEMS)
                if patch and conv:
                    what = "clean" if norm == "clean" else "robust"
                    differences.append(share(conv, what) - share(patch, what))
            if len(differences) < 2:
                continue
            gains[norm] = statistics.fmean(differences)
            interval = student_interval(differences)
            compared = f"ConvStem over PatchStem, {len(differences)} seeds"
            yield f"- {name}, {norm}, {compared}: {points(gains[norm], *interval)}"
        if len(gains) == 4:
            above = min(gains["L2"], gains["L1"]) > gains["Linf"]
            yield f"- {name}: the gain at L2 and at L1 is {'' if above else 'not '}larger than that at Linf"


def resolutions(study: Study) -> Iterable[str]:
    from keras_robust.statistics import Paired

    last = {}
    for family, stem in models():
        rows = curve(study, family, stem, TRAINED)
        own = study.row((family, stem, "long", 0), "Linf")
        base = next((row for row in rows if own and row["resolution"] == own["resolution"]), None)
        larger = [row for row in rows if base and row["resolution"] > base["resolution"]]
        if not base or not larger:
            continue
        best = max(larger, key=share)
        change: Paired = paired(base, best)
        # Bonferroni: so many resolutions were compared.
        low, high = widened(change, len(larger))
        last[family, stem] = max(row["resolution"] for row in [base, *larger] if share(row) >= share(base))
        yield (
            f"- {title(family, stem)}, {base['resolution']} -> {best['resolution']} px: "
            f"{points(change.difference, low, high)}; not below {base['resolution']} px up to {last[family, stem]} px"
        )
    for family, name in FAMILIES.items():
        if {(family, stem) for stem in STEMS} <= last.keys():
            later = last[family, "convstem"] > last[family, "patchstem"]
            yield f"- {name}: the ConvStem {'decays later' if later else 'does not decay later'}"


def widened(change: "Paired", comparisons: int) -> tuple[float, float]:
    """The interval of a paired difference, corrected for a number of comparisons."""
    low, high = change.interval
    normal = statistics.NormalDist()
    factor = normal.inv_cdf(1 - 0.025 / comparisons) / normal.inv_cdf(0.975)
    centre, half = (low + high) / 2, (high - low) / 2
    return centre - factor * half, centre + factor * half


def models() -> list[tuple[str, str]]:
    return [(family, stem) for family in FAMILIES for stem in STEMS]


def title(family: str, stem: str) -> str:
    return f"{FAMILIES[family]}, {STEMS[stem]}"


def curve(study: Study, family: str, stem: str, eps: float) -> list[Mapping[str, Any]]:
    rows = study.cells.get((family, stem, "long", 0), {}).get("resolutions", ())
    return [row for row in rows if math.isclose(row["eps"], eps)]


# Figures and tables.


def figures(study: Study, folder: Path) -> None:
    from keras_robust.evaluation.reporting.charts import Line, Panel, write_chart
    from keras_robust.statistics import OverSeeds, Proportion

    def proportion(row: Mapping[str, Any]) -> Proportion:
        return Proportion(row["robust"], row["n"])

    steps, sides, bars = [], {}, {}
    for style, (family, stem) in enumerate(models()):
        name = title(family, stem)
        rows = [(place, study.row((family, stem, rung, 0), "Linf")) for place, rung in enumerate(RUNGS)]
        steps.append(Line(name, style, [(float(place), proportion(row)) for place, row in rows if row]))
        for eps in (4, 6, 8):
            found = curve(study, family, stem, eps / 255)
            line = Line(name, style, [(float(row["resolution"]), proportion(row)) for row in found])
            sides.setdefault(eps, []).append(line)
        for norm in ("clean", "Linf", "L2", "L1"):
            row_norm, what = ("Linf", "clean") if norm == "clean" else (norm, "robust")
            each = [study.row((family, stem, "long", seed), row_norm) for seed in study.seeds(family, stem)]
            values = tuple(share(row, what) for row in each if row)
            bars.setdefault(norm, []).append(Line(name, style, [(0.0, OverSeeds(values))] if values else []))
    panels = {
        "ladder": [Panel("Linf 4/255", "", shown(steps), [(float(i), rung) for i, rung in enumerate(RUNGS)])],
        "stems": [Panel(norm, "", shown(lines), [(0.0, "")]) for norm, lines in bars.items()],
        "resolution": [
            Panel(f"Linf {eps}/255", "test resolution, px", shown(lines), places(lines)) for eps, lines in sides.items()
        ],
    }
    for name, each in panels.items():
        if all(panel.lines for panel in each):
            for kind in ("svg", "png"):
                write_chart(each, folder / f"{name}.{kind}")


def shown(lines: Iterable[Any]) -> list[Any]:
    return [line for line in lines if line.points]


def places(lines: Iterable[Any]) -> list[tuple[float, str]]:
    return [(place, f"{place:g}") for place in sorted({place for line in lines for place, _ in line.points})]


def table(study: Study) -> str:
    """Every model: accuracies in %, of several seeds the mean and each."""
    from keras_robust.statistics import OverSeeds

    lines = [
        "| model | rung | clean | Linf 4/255 | L2 | L1 | training, min |",
        "|---|---|---|---|---|---|---|",
    ]
    for family, stem in models():
        for rung in RUNGS:
            keys = sorted(key for key in study.cells if key[:3] == (family, stem, rung))
            if not keys:
                continue
            columns = []
            for norm, what in (("Linf", "clean"), ("Linf", "robust"), ("L2", "robust"), ("L1", "robust")):
                rows = [row for key in keys if (row := study.row(key, norm))]
                columns.append(str(OverSeeds(tuple(share(row, what) for row in rows))) if rows else "-")
            minutes = statistics.fmean(study.cells[key]["training"]["seconds"] for key in keys) / 60
            lines.append(f"| {title(family, stem)} | {rung} | {' | '.join(columns)} | {minutes:.0f} |")
    return "\n".join(lines)


def standard(study: Study) -> Iterable[str]:
    """The last rung of seed 0 under AutoAttack `standard`."""
    yield "| model | Linf 4/255 | L2 | L1 |\n|---|---|---|---|"
    for family, stem in models():
        rows = [study.row((family, stem, "long", 0), norm, "standard") for norm in ("Linf", "L2", "L1")]
        if all(rows):
            cells = (f"{100 * share(row):.1f}" for row in rows if row)
            yield f"| {title(family, stem)} | {' | '.join(cells)} |"


def summary(options: Any) -> None:
    folder = options.results / options.scale
    study = Study(folder)
    figures(study, folder)
    parts = [
        ("Accuracies in %, AutoAttack `short`", [table(study)]),
        ("AutoAttack `standard`, `long`, seed 0, in %", standard(study)),
        ("(a) Each step of the ladder makes models more robust", ladder(study)),
        ("(b) A ConvStem is more robust, above all to unseen threat models", stems(study)),
        ("(c) More pixels at test time make models more robust, up to a point", resolutions(study)),
    ]
    text = "\n\n".join(f"## {heading}\n\n" + "\n".join(lines) for heading, lines in parts)
    from keras_robust.files import write_text

    write_text(folder / "summary.md", f"# Imagenette study, {options.scale}\n\n{text}\n")
    print(text)


def parser() -> CommandParser:
    parser = CommandParser("figures", __doc__)
    parser.prog = "imagenette_figures.py"
    parser.add_argument("--scale", default="cpu", help="folder of the results (default: cpu)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the scales (default: beside this)")
    return parser


if __name__ == "__main__":
    own = parser()
    sys.exit(run(own, summary, own.parse_args()))
