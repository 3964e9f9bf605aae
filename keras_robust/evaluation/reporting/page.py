"""One or several reports as a page that needs nothing beside itself."""

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np

from keras_robust.evaluation.reporting import tables
from keras_robust.evaluation.reporting.charts import MOST_TICKS, Axis, columns, labels, lines, panel
from keras_robust.evaluation.reporting.style import STYLE
from keras_robust.evaluation.reporting.svg import Series, bars, chart, key
from keras_robust.evaluation.results import Report
from keras_robust.statistics import Proportion

SMALL = 96  # up to this side, in pixels, images are shown enlarged and stored without loss


def page(reports: Mapping[str, Report]) -> str:
    """The HTML of one report, or of several side by side.

    Args:
        reports: one per model, by the name to show.
    """
    several = len(reports) > 1
    body = [f"<h1>{escape(tables.title(reports))}</h1>"]
    body += [f"<p class='sub'>{_named(name, several)}{escape(tables.subtitle(r))}</p>" for name, r in reports.items()]
    body.append(_warnings(reports))
    if not several:
        body.append(_tiles(next(iter(reports.values()))))
    body += [_accuracies(reports), _curves(reports), _cost(reports)]
    if several:
        body.append(_pairs(reports))
    body += [_stages(reports), _gallery(reports), _notes(reports), _settings(reports)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(tables.title(reports))}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _named(name, several):
    return f"<b>{escape(name)}</b> · " if several else ""


def _section(heading, *parts):
    return f"<section><h2>{escape(heading)}</h2>{''.join(parts)}</section>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], first=1):
    """Cells are HTML; the `first` columns are headers of their rows."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    lines = []
    for row in rows:
        cells = [f"<th>{cell}</th>" if place < first else f"<td>{cell}</td>" for place, cell in enumerate(row)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"


def _share(share: Proportion, style=0):
    low, high = share.interval
    return (
        f"<div class='share s{style}' style='--share:{100 * share.value:.1f}%'><b>{100 * share.value:.1f}</b> %"
        f"<small>{100 * low:.0f}–{100 * high:.0f}</small></div>"
    )


def _warnings(reports):
    items = [
        f"<li>{_named(name, len(reports) > 1)}{escape(warning)}</li>"
        for name, report in reports.items()
        for warning in report.warnings
    ]
    return f"<aside class='warnings'><h2>Warnings</h2><ul>{''.join(items)}</ul></aside>" if items else ""


def _tiles(report):
    resolution = report.resolutions[0]
    tiles = "".join(
        f"<div class='tile'><span>{escape(label)}</span><b>{100 * share.value:.1f}<i> %</i></b>"
        f"<small>{100 * share.interval[0]:.1f}–{100 * share.interval[1]:.1f}</small></div>"
        for label, share in columns(report, resolution)
    )
    return f"<p class='at'>Accuracy at {resolution} px, with 95 % intervals</p><div class='tiles'>{tiles}</div>"


def _accuracies(reports):
    several = len(reports) > 1
    names = labels(reports)
    rows = []
    for style, (name, report) in enumerate(reports.items()):
        for resolution in report.resolutions:
            cells = dict(columns(report, resolution))
            shares = [_share(cells[label], style % 6) if label in cells else "" for label in names]
            rows.append([*([f"{key(style)} {escape(name)}"] if several else []), f"{resolution} px", *shares])
    header = [*(["model"] if several else []), "resolution", *map(escape, names)]
    figure = _by_resolution(reports, names)
    return _section("Accuracy by threat model and resolution", _table(header, rows, 2 if several else 1), figure)


def _legend(names):
    items = "".join(f"<span>{key(style)} {escape(name)}</span>" for style, name in enumerate(names))
    return f"<p class='legend'>{items}</p>"


def _charts(parts):
    return f"<div class='charts'>{''.join(f'<figure>{part}</figure>' for part in parts)}</div>"


def _by_resolution(reports, names):
    axis = Axis(reports, cost=False)
    if axis.n_places > 1:
        return _panels(reports, names, axis)
    groups = [
        (label, [(line.name, line.style, line.points[0][1]) for line in lines(reports, label, axis)]) for label in names
    ]
    legend = _legend(reports) if len(reports) > 1 else ""
    return legend + _charts([bars(f"Accuracy (%) at {axis.ticks[0]} px", groups)])


def _panels(reports, names, axis):
    """Accuracies along an axis: a panel per threat model or, of one model alone, per norm."""
    if len(reports) > 1:
        panels = [panel(f"{label}: accuracy (%)", lines(reports, label, axis), axis) for label in names]
        return _legend(reports) + _charts(panels)
    (report,) = reports.values()
    panels = []
    for norm in dict.fromkeys(threat.norm for threat in report.threats):
        shown = ["no attack", *(str(threat) for threat in report.threats if threat.norm == norm)]
        drawn = [
            Series(label, style, line.points)
            for style, label in enumerate(shown)
            for line in lines(reports, label, axis)
        ]
        panels.append(panel(f"{norm}: accuracy (%)", drawn, axis) + _legend(shown))
    return _charts(panels)


def _curves(reports):
    """Robust accuracy against the radius: a panel per norm and, for several models, resolution."""
    several = len(reports) > 1
    threats = dict.fromkeys(threat for report in reports.values() for threat in report.threats)
    norms = [norm for norm in ("Linf", "L2", "L1") if len({t.eps for t in threats if t.norm == norm and t.eps}) > 1]
    if not norms:
        note = "Give several radii of a norm to see how the accuracy falls as the radius grows."
        return _section("Robustness curves", f"<p class='note'>{note}</p>")
    resolutions = list(dict.fromkeys(r for report in reports.values() for r in report.resolutions))
    panels = []
    for norm in norms:
        scale, unit = (255, "radius (1/255)") if norm == "Linf" else (1, "radius")
        for shown in [[resolution] for resolution in resolutions] if several else [resolutions]:
            lines = [
                Series(name if several else f"{resolution} px", number, _curve(report, norm, resolution, scale))
                for number, (name, report, resolution) in enumerate(
                    (name, report, resolution)
                    for name, report in reports.items()
                    for resolution in shown
                    if resolution in report.resolutions
                )
            ]
            ticks = sorted({0.0, *(t.eps * scale for t in threats if t.norm == norm)})
            where = f", {shown[0]} px" if several or len(shown) == 1 else ""
            panels.append(chart(f"{norm}{where}: accuracy (%)", lines, unit, _ticks(ticks)))
    names = list(reports) if several else [f"{resolution} px" for resolution in resolutions]
    return _section("Robustness curves", _legend(names) if len(names) > 1 else "", _charts(panels))


def _ticks(values):
    return [(value, f"{value:g}") for value in values[:: -(-len(values) // MOST_TICKS)]]


def _curve(report, norm, resolution, scale):
    points = {0.0: report[report.threats[0], resolution].clean}
    points |= {t.eps * scale: report[t, resolution].robust for t in report.threats if t.norm == norm}
    return sorted(points.items())


def _cost(reports):
    several = len(reports) > 1
    rows = [
        [
            *([escape(name)] if several else []),
            f"{resolution} px",
            tables.giga(report.settings.model.multiply_adds.get(resolution)),
        ]
        for name, report in reports.items()
        for resolution in report.resolutions
    ]
    header = [*(["model"] if several else []), "resolution", "multiply-adds per image"]
    axis = Axis(reports, cost=True)
    parts = [_table(header, rows, len(header) - 1)]
    if axis.n_places > 1:
        parts.append(_panels(reports, labels(reports), axis))
    return _section("Cost", *parts)


def _pairs(reports):
    parts = []
    for name, first, rows, reason in tables.pairs(reports):
        parts.append(f"<h3>{escape(name)} against {escape(first)}</h3>")
        if reason:
            parts.append(f"<p class='note'>{escape(reason)}</p>")
            continue
        header = ["resolution", "threat model", "difference (95 %)", f"only {name}", f"only {first}", "p"]
        body = [
            [f"{resolution} px", label, tables.difference(p), str(p.only_second), str(p.only_first), tables.p_value(p)]
            for resolution, label, p in rows
        ]
        parts.append(_table(map(escape, header), [list(map(escape, row)) for row in body], 2))
    note = "Images that only one of two models gets right under attack, and McNemar's exact test on them."
    return _section("Image by image", f"<p class='note'>{note}</p>", *parts)


def _stages(reports):
    parts = []
    for name, report in reports.items():
        header, rows = tables.stages(report)
        parts += [f"<h3>{escape(name)}</h3>"] if len(reports) > 1 else []
        parts.append(_table(map(escape, header), [list(map(escape, row)) for row in rows], 2))
    return _section("What each attack left", *parts)


def _gallery(reports):
    parts = []
    for name, report in reports.items():
        shown = [picture for picture in report.gallery if picture.resolution == report.resolutions[0]]
        for threat in dict.fromkeys(picture.threat for picture in shown):
            cards = "".join(_card(picture, report.images.outputs) for picture in shown if picture.threat == threat)
            heading = f"{f'{name}, ' if len(reports) > 1 else ''}{threat}, {report.resolutions[0]} px"
            parts.append(f"<h3>{escape(heading)}</h3><div class='cards'>{cards}</div>")
    if not parts:
        return ""
    note = (
        "Clean, adversarial, and the difference amplified to full range: mid-grey is no change. The first images of "
        "the evaluation that the attacks broke."
    )
    return _section("What the attacks did", f"<p class='note'>{note}</p>", *parts)


def _card(picture, outputs):
    names = [outputs[answer].replace("_", " ") for answer in (picture.prediction, picture.adversarial_prediction)]
    images = "".join(
        f"<img class='{'pixels' if len(pixels) <= SMALL else ''}' src='{_data(pixels)}' alt='{kind}' title='{kind}'>"
        for kind, pixels in zip(("clean", "adversarial", "difference"), picture.pixels)
    )
    return (
        f"<figure class='card'>{images}<figcaption>{escape(names[0])} → <b>{escape(names[1])}</b></figcaption></figure>"
    )


def _data(pixels: np.ndarray) -> str:
    """A uint8 image as a data URL."""
    from PIL import Image

    kind, options = ("png", {}) if pixels.shape[0] <= SMALL else ("jpeg", {"quality": 88})
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _notes(reports):
    report = next(iter(reports.values()))
    parts = ["<ul>", *(f"<li>{escape(note)}</li>" for note in tables.notes(report)), "</ul>"]
    for name, each in reports.items():
        if each.skipped:
            items = "".join(f"<li>{escape(reason)}</li>" for reason in each.skipped)
            parts.append(f"<p>{_named(name, len(reports) > 1)}images that could not be read:</p><ul>{items}</ul>")
    return _section("Reading it", *parts)


def _settings(reports):
    parts = []
    for name, report in reports.items():
        content = escape(json.dumps(report.settings.to_json(), indent=2, ensure_ascii=False))
        parts.append(f"<details><summary>{escape(name)}</summary><pre>{content}</pre></details>")
    return _section("Settings", "<p class='note'>All that gives these figures again.</p>", *parts)
