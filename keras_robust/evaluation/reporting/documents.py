"""Reports as files: JSON, Markdown, HTML."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from keras_robust.evaluation.reporting.charts import figure
from keras_robust.evaluation.reporting.page import page
from keras_robust.evaluation.reporting.tables import markdown
from keras_robust.evaluation.results import Report
from keras_robust.files import write_text


def write(report: Report, out: str | PathLike) -> Path:
    """Write `report.json` with `per_image.npz`, `report.md` and `report.html`; returns the path of the last."""
    report.write_json(out)
    return write_comparison({report.name: report}, out)


def write_comparison(reports: Mapping[str, Report], out: str | PathLike) -> Path:
    """Write several reports side by side as `report.md` and `report.html`; returns the path of the latter.

    Args:
        reports: one per model, by the name to show; the others are compared with the first, image by image where they
            saw the same images.
        out: the folder.

    Example:
        >>> write_comparison({"clean": Report.load("a/report.json"), "robust": Report.load("b/report.json")}, "both")
    """
    if not reports:
        raise ValueError("reports must hold at least one report; received none.")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "report.md", markdown(reports))
    path = out / "report.html"
    write_text(path, page(reports))
    return path


def write_figure(reports: Mapping[str, Report], path: str | PathLike) -> Path:
    """Write accuracy against resolution and against multiply-adds, a line per model, as an SVG; returns its path.

    Args:
        reports: one per model, by the name to show.
        path: of the file.

    Raises:
        ValueError: no report has two resolutions.
    """
    if len({resolution for report in reports.values() for resolution in report.resolutions}) < 2:
        raise ValueError("reports must be of at least two resolutions together.")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, figure(reports))
    return path
