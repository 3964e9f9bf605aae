"""Reports as files: JSON, Markdown, one HTML page, and charts for papers."""

import sys
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from keras_robust.evaluation.reporting import charts, sentences
from keras_robust.evaluation.reporting.page import chart_groups, page
from keras_robust.evaluation.reporting.tables import markdown
from keras_robust.evaluation.results import Report
from keras_robust.files import write_text

FIGURES = "figures"


def write(report: Report, out: str | PathLike) -> Path:
    """Write all files of a report: `report.json`, with its `.npz` files, and those of `write_comparison`.

    Returns:
        The path of `report.html`.
    """
    report.write_json(out)
    return write_comparison({report.name: report}, out)


def write_comparison(reports: Mapping[str, Report], out: str | PathLike) -> Path:
    """Write several reports side by side: `report.md`, `report.html`, and its charts as PNG and PDF in `figures/`.

    Without Jinja2 and matplotlib (`pip install 'keras-robust[report]'`) only `report.md` is written, and a line on the
    standard error says so.

    Args:
        reports: one per model, by the name to show; the others are compared with the first, image by image where they
            saw the same images.
        out: the folder.

    Returns:
        The path of `report.html`.
    """
    if not reports:
        raise ValueError("reports must hold at least one report; received none.")
    reports, out = sentences.marked(reports), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "report.md", markdown(reports))
    path = out / "report.html"
    try:
        write_text(path, page(reports))
        for name, panels in chart_groups(reports).items():
            for kind in ("png", "pdf"):
                charts.write_chart(panels, out / FIGURES / f"{name}.{kind}")
    except ImportError as error:
        print(f"report.html was not written: {error}", file=sys.stderr, flush=True)
    return path


def write_figure(reports: Mapping[str, Report], path: str | PathLike) -> Path:
    """Write accuracy against resolution and against multiply-adds, a line per model, as .svg, .png or .pdf.

    Args:
        reports: one per model, by the name to show.
        path: of the file, which is returned.

    Raises:
        ValueError: the reports are all of one resolution, or the path ends in something else.
    """
    reports = sentences.marked(reports)
    panels = charts.panels_by_resolution(reports)
    if not panels:
        raise ValueError("reports must be of at least two resolutions together.")
    return charts.write_chart([*panels, *charts.panels_by_cost(reports)], path)
