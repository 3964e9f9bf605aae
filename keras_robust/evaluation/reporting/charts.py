"""Accuracy against resolution and against multiply-adds, as one picture that needs nothing beside itself."""

from collections.abc import Mapping, Sequence
from html import escape

from keras_robust.evaluation.reporting.style import FIGURE
from keras_robust.evaluation.reporting.svg import HEIGHT, WIDTH, Series, chart, key
from keras_robust.evaluation.results import Report
from keras_robust.statistics import Proportion

ALL = "all threat models"
GAP = 24
MOST_TICKS = 7


def columns(report: Report, resolution: int) -> list[tuple[str, Proportion]]:
    """Accuracies of a report at a resolution by what was done to the images: nothing, each threat model, all."""
    cells = [("no attack", report[report.threats[0], resolution].clean)]
    cells += [(str(threat), report[threat, resolution].robust) for threat in report.threats]
    return [*cells, (ALL, report.union(resolution))] if len(report.threats) > 1 else cells


def labels(reports: Mapping[str, Report]) -> list[str]:
    """Of the columns of several reports."""
    return list(dict.fromkeys(label for r in reports.values() for label, _ in columns(r, r.resolutions[0])))


class Axis:
    """Where the accuracies at each resolution are drawn: at its pixels, or at the multiply-adds that it costs."""

    def __init__(self, reports: Mapping[str, Report], cost: bool):
        self._cost = cost
        places = sorted({x for report in reports.values() for r in report.resolutions if (x := self._raw(report, r))})
        self.n_places = len(places)
        self._unit, name = 1.0, ""
        if cost and places:
            self._unit, name = (1e9, "10⁹") if places[-1] >= 1e9 else (1e6, "10⁶")
        self.label = f"multiply-adds ({name})" if cost else "resolution (pixels)"
        if cost:
            self.ticks = [float(f"{places[-1] / self._unit * k / 4:.2g}") for k in range(5)] if places else []
        else:
            self.ticks = places[:: -(-len(places) // MOST_TICKS)]

    def _raw(self, report, resolution):
        return report.settings.model.multiply_adds.get(resolution) if self._cost else resolution

    def __call__(self, report, resolution):
        """The place of a resolution, None where its cost is not known."""
        raw = self._raw(report, resolution)
        return None if raw is None else raw / self._unit


def lines(reports: Mapping[str, Report], label: str, axis: Axis) -> list[Series]:
    """A line for each model: the accuracies called `label`."""
    found = []
    for style, (name, report) in enumerate(reports.items()):
        points = []
        for resolution in report.resolutions:
            share, x = dict(columns(report, resolution)).get(label), axis(report, resolution)
            if share is not None and x is not None:
                points.append((x, share))
        if points:
            found.append(Series(name, style, sorted(points, key=lambda point: point[0])))
    return found


def panel(title: str, series: Sequence[Series], axis: Axis) -> str:
    return chart(title, series, axis.label, [(x, f"{x:g}") for x in axis.ticks])


def figure(reports: Mapping[str, Report]) -> str:
    """The SVG: a column for each threat model; above against pixels, below against multiply-adds where known."""
    names = labels(reports)
    rows = [axis for axis in (Axis(reports, False), Axis(reports, True)) if axis.n_places > 1]
    parts, top = [], 30
    for row, axis in enumerate(rows):
        for column, label in enumerate(names):
            x, y = column * (WIDTH + GAP), top + row * (HEIGHT + GAP)
            drawn = panel(f"{label}: accuracy (%)", lines(reports, label, axis), axis)
            parts.append(drawn.replace("<svg", f'<svg x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}"', 1))
    x = 0
    for style, name in enumerate(reports):
        parts.append(
            key(style).replace("<svg", f'<svg x="{x}"', 1) + f'<text x="{x + 22}" y="13">{escape(name)}</text>'
        )
        x += 46 + 8 * len(name)
    width, height = len(names) * (WIDTH + GAP), top + len(rows) * (HEIGHT + GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-{GAP} -{GAP} {width + GAP} {height + GAP}">'
        f"<style>{FIGURE}</style>{''.join(parts)}</svg>\n"
    )
