"""Charts of reports, by matplotlib: as SVG that follows a page's colours, and as files for papers."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_robust.attacks.result import Curve
from keras_robust.evaluation import measures
from keras_robust.evaluation.results import ALL, Report
from keras_robust.files import write_text, written_aside
from keras_robust.statistics import Estimate, Proportion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NO_ATTACK = "no attack"
# Colours of Okabe & Ito, told apart without red or green; in a page each is a variable of its style sheet.
LINES = ("#0072b2", "#d55e00", "#009e73", "#b2558a", "#b87d00", "#3d3d3d")
INK, SOFT, RULE = "#1b1f24", "#59636e", "#d8dee4"
MARKERS = "osD^vP"
PANEL = (3.4, 2.6)  # inches
MOST_TICKS = 6
POINTS = 25  # of a whole curve
# Numbered parts of a figure, whose names would stand in a page of several more than once.
ID_OF_PART = r' id="(?:figure|axes|patch|text|line2d|legend|matplotlib\.axis|xtick|ytick|LineCollection)_\d+"'
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text, to be found and to be read aloud
    "svg.hashsalt": "keras_robust",  # the same report gives the same bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": RULE,
    "axes.labelcolor": SOFT,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
}
# What would tell when a file was made, and by which release.
NO_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes:
        name: of what it shows.
        style: number of its colour and marker.
        points: accuracies by place on the horizontal axis.
        falls: it falls in steps, each drawn at the beginning of its interval: nowhere above what was measured.
    """

    name: str
    style: int
    points: Sequence[tuple[float, Proportion | Estimate]]
    falls: bool = False


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes:
        title: what is shown.
        label: of the horizontal axis.
        lines: at least one.
        ticks: places on the horizontal axis, and what is written there; a panel of one place shows bars.
        own_legend: whether the lines are not models but something of this panel, which then names them.
        diagonal: whether to draw where both axes are equal.
    """

    title: str
    label: str
    lines: Sequence[Line]
    ticks: Sequence[tuple[float, str]]
    own_legend: bool = False
    diagonal: bool = False


def columns(report: Report, resolution: int) -> dict[str, Proportion | Estimate]:
    """Accuracies of one model at one resolution: without attack, under each threat model, under all of them."""
    shares: dict[str, Proportion | Estimate] = {NO_ATTACK: report[report.threats[0], resolution].clean}
    shares |= {str(threat): report[threat, resolution].robust for threat in report.threats}
    if len(report.threats) > 1:
        shares[ALL] = report.union(resolution)
    return shares


def labels(reports: Mapping[str, Report]) -> list[str]:
    """The columns that any of the reports has, in order."""
    found = [label for report in reports.values() for label in columns(report, report.resolutions[0])]
    return sorted(dict.fromkeys(found), key=lambda label: (label == ALL, label != NO_ATTACK))


def panels_by_resolution(reports: Mapping[str, Report]) -> list[Panel]:
    """Accuracy against the test resolution; none where all reports are of one.

    A panel for each column of the table or, of one model alone, for each norm with a line for each radius.
    """
    if len(reports) == 1:
        return _panels_of_one_model(next(iter(reports.values())))
    return _panels(reports, "resolution in pixels", {name: {} for name in reports})


def panels_by_cost(reports: Mapping[str, Report]) -> list[Panel]:
    """Accuracy against multiply-adds; none where they are not known, or where all models cost the same."""
    costs = {
        name: {
            resolution: cost / 1e9
            for resolution, cost in report.settings.model.multiply_adds.items()
            if cost is not None
        }
        for name, report in reports.items()
    }
    if not all(costs.values()) or all(cost == next(iter(costs.values())) for cost in costs.values()):
        return []
    return _panels(reports, "multiply-adds (10⁹)", costs)


def panels_by_radius(reports: Mapping[str, Report]) -> list[Panel]:
    """Accuracy against the radius, a panel for each norm of several radii; of one model a line for each resolution.

    Where the nearest adversarial images are known, the line is the whole curve, and what attacks found at single radii
    of a model alone stands beside it.
    """
    panels = []
    for norm in dict.fromkeys(norm for report in reports.values() for norm in report.norms):
        threats = [threat for report in reports.values() for threat in report.threats if threat.norm == norm]
        radii = sorted({threat.eps for threat in threats if threat.is_bounded and threat.eps > 0})
        curves = [report.curve(norm, report.resolutions[0]) for report in reports.values() if report.has_curve(norm)]
        if len(radii) < 2 and not curves:
            continue
        scale, label = (255, "radius in 1/255") if norm == "Linf" else (1, "radius")
        several = len(reports) > 1
        lines: list[Line] = []
        for name, report in reports.items():
            for resolution in report.resolutions[:1] if several else report.resolutions:
                known = name if several else f"{resolution} px"
                at_radii = _at_radii(report, norm, resolution, scale)
                if not report.has_curve(norm):
                    lines += [Line(known, len(lines), at_radii)] if len(at_radii) > 1 else []
                    continue
                lines.append(Line(known, len(lines), _whole_curve(report.curve(norm, resolution), scale), falls=True))
                if not several and len(at_radii) > 1:
                    lines.append(Line(f"{known}, attacks in balls", len(lines), at_radii))
        where = f" at {next(iter(reports.values())).resolutions[0]} px" if several else ""
        places = list(_thinned([0.0, *(eps * scale for eps in radii)]))
        if curves:
            places = [place * scale for place in max(curves, key=lambda curve: curve.end).radii(MOST_TICKS)]
        ticks = [(place, f"{place:.3g}") for place in places]
        panels.append(Panel(f"{norm}{where}", label, lines, ticks, own_legend=not several and len(lines) > 1))
    return panels


def panels_of_reliability(reports: Mapping[str, Report]) -> list[Panel]:
    """Accuracy against confidence, where that was kept: a panel per resolution; of several models at the first.

    Of one model lines without attack and under each threat model, of several those without attack.
    """
    kept = {name: report for name, report in reports.items() if report.settings.calibration}
    several, panels = len(reports) > 1, []
    ticks = [(float(place), str(place)) for place in range(0, 101, 20)]
    for resolution in next(iter(reports.values())).resolutions[: 1 if several else None] if kept else ():
        lines = []
        for style, (name, report) in enumerate(reports.items()):
            if name not in kept or resolution not in report.resolutions:
                continue
            found = list(measures.calibrations(report, resolution))[: 1 if several else None]
            for number, (kind, calibration) in enumerate(found):
                points = [(100 * confidence, share) for confidence, share in calibration.reliability]
                lines.append(Line(name if several else kind, style if several else number, points))
        if lines:
            title, label = f"reliability, {resolution} px", "confidence (%)"
            panels.append(Panel(title, label, lines, ticks, own_legend=not several, diagonal=True))
    return panels


def panels_side_by_side(reports: Mapping[str, Report]) -> list[Panel]:
    """Bars of several models at one resolution."""
    resolution = next(iter(reports.values())).resolutions[0]
    panels = []
    for label in labels(reports):
        lines = [
            Line(name, style, [(0.0, columns(report, resolution)[label])])
            for style, (name, report) in enumerate(reports.items())
            if resolution in report.resolutions and label in columns(report, resolution)
        ]
        panels.append(Panel(label, "", lines, [(0.0, f"{resolution} px")]))
    return panels


def _at_radii(report: Report, norm: str, resolution: int, scale: float) -> list[tuple[float, Proportion | Estimate]]:
    points = {0.0: report[report.threats[0], resolution].clean}
    radii = [threat for threat in report.threats if threat.norm == norm and threat.is_bounded]
    points |= {threat.eps * scale: report[threat, resolution].robust for threat in radii}
    return sorted(points.items(), key=lambda point: point[0])


def _whole_curve(curve: Curve, scale: float) -> list[tuple[float, Proportion | Estimate]]:
    return [(eps * scale, curve.at(eps)) for eps in curve.levels(POINTS)]


def _panels_of_one_model(report: Report) -> list[Panel]:
    if len(report.resolutions) < 2:
        return []
    shares = {resolution: columns(report, resolution) for resolution in report.resolutions}
    ticks = [(float(tick), f"{tick:g}") for tick in _thinned(sorted(report.resolutions))]
    panels = []
    for norm in dict.fromkeys(threat.norm for threat in report.threats):
        shown = [NO_ATTACK, *(str(threat) for threat in report.threats if threat.norm == norm)]
        lines = [
            Line(label, style, [(float(each), shares[each][label]) for each in sorted(shares)])
            for style, label in enumerate(shown)
        ]
        panels.append(Panel(norm, "resolution in pixels", lines, ticks, own_legend=True))
    return panels


def _panels(reports: Mapping[str, Report], label: str, places: Mapping[str, Mapping[int, float]]) -> list[Panel]:
    """A panel for each column; `places` holds where a model's resolution lies, if not at its number of pixels."""

    def place(name: str, resolution: int) -> float:
        return places[name].get(resolution, float(resolution))

    ticks = sorted({place(name, resolution) for name, report in reports.items() for resolution in report.resolutions})
    if len(ticks) < 2:
        return []
    panels = []
    for column in labels(reports):
        lines = []
        for style, (name, report) in enumerate(reports.items()):
            shares = {resolution: columns(report, resolution) for resolution in report.resolutions}
            points = [(place(name, each), shares[each][column]) for each in shares if column in shares[each]]
            lines += [Line(name, style, sorted(points, key=lambda point: point[0]))] if points else []
        panels.append(Panel(column, label, lines, [(tick, f"{tick:.3g}") for tick in _thinned(ticks)]))
    return panels


def _thinned(values: Sequence[float]) -> Sequence[float]:
    return values[:: -(-len(values) // MOST_TICKS)]


def draw(panels: Sequence[Panel], n_columns: int = 3, legend: bool = True) -> "Figure":
    """A figure of panels.

    Args:
        panels: at least one.
        n_columns: panels in a row.
        legend: whether the figure names its lines, where there are several.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.text import Text
    except ImportError as error:
        raise ImportError(f"charts need {error.name}: pip install 'keras-robust[report]'") from error
    n_columns = min(n_columns, len(panels))
    n_rows = -(-len(panels) // n_columns)
    with mpl.rc_context(STYLE):
        figure = Figure((PANEL[0] * n_columns, PANEL[1] * n_rows), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, squeeze=False).flat
        for panel, each in zip(panels, axes):
            _draw_panel(panel, each)
        for each in list(axes)[len(panels) :]:
            each.set_visible(False)
        names = {line.name: line.style for panel in panels for line in panel.lines if not panel.own_legend}
        if legend and len(names) > 1:
            handles = [mpl.lines.Line2D([], [], **_look(style), label=name) for name, style in names.items()]
            figure.legend(handles=handles, loc="outside upper left", ncols=min(len(names), n_columns + 1))
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a dollar sign in a name is a dollar sign
    return figure


def _look(style: int) -> dict[str, Any]:
    return {
        "color": LINES[style % len(LINES)],
        "marker": MARKERS[style % len(MARKERS)],
        "markersize": 4.5,
        "linewidth": 1.6,
    }


def _draw_panel(panel: Panel, axes: "Axes") -> None:
    bars = len(panel.ticks) == 1
    for number, line in enumerate(panel.lines):
        x = [number if bars else place for place, _ in line.points]
        y = [100 * share.value for _, share in line.points]
        low = [100 * max(0.0, share.value - share.interval[0]) for _, share in line.points]
        high = [100 * max(0.0, share.interval[1] - share.value) for _, share in line.points]
        look = _look(line.style) | ({"drawstyle": "steps-pre"} if line.falls else {})
        if bars:
            axes.bar(x, y, color=look["color"], alpha=0.55, width=0.7)
            look |= {"linestyle": "none", "marker": "none"}
        axes.errorbar(x, y, [low, high], capsize=2.5, elinewidth=1, label=line.name, **look)
    if panel.diagonal:
        axes.plot([0, 100], [0, 100], color=SOFT, linewidth=1, linestyle=":")
    if panel.own_legend:
        axes.legend(fontsize=8)
    axes.set_title(panel.title)
    axes.set_ylim(0, 100)
    estimated = any(share.is_estimate for line in panel.lines for _, share in line.points)
    axes.set_ylabel("accuracy (%), estimated" if estimated else "accuracy (%)")
    axes.set_xlabel(panel.label)
    if bars:
        axes.set_xticks(range(len(panel.lines)), ["" for _ in panel.lines])
        axes.set_xlim(-0.7, len(panel.lines) - 0.3)
    else:
        axes.set_xticks([place for place, _ in panel.ticks], [text for _, text in panel.ticks])


def inline_svg(panel: Panel) -> str:
    """A panel to put into a page: no legend, and the page's colours and fonts in place of its own."""
    text = _bytes(draw([panel], legend=False), "svg").decode()
    text = text[text.index("<svg ") :]
    for pattern in (r' (?:width|height)="[\d.]+pt"', r"<metadata>.*?</metadata>", ID_OF_PART):
        text = re.sub(pattern, "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([\w ]*?[\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", text)
    variables = {INK: "--ink", SOFT: "--soft", RULE: "--line"} | {c: f"--c{i}" for i, c in enumerate(LINES)}
    for colour, variable in variables.items():
        text = text.replace(colour, f"var({variable})")
    return text.strip()


def write_chart(panels: Sequence[Panel], path: str | PathLike) -> Path:
    """Write a figure in the format of the path's suffix, .svg, .png or .pdf; returns its path.

    Raises:
        ValueError: another suffix.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".")
    if kind not in NO_METADATA:
        raise ValueError(f"path must end in .svg, .png or .pdf; received {str(path)!r}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = _bytes(draw(panels), kind)
    if kind == "svg":
        write_text(path, content.decode())
    else:
        with written_aside(path) as aside:
            aside.write_bytes(content)
    return path


def _bytes(figure: "Figure", kind: str) -> bytes:
    import matplotlib as mpl

    file = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(
            file, format=kind, dpi=200, metadata=NO_METADATA[kind], **({"transparent": True} if kind == "svg" else {})
        )
    return file.getvalue()
