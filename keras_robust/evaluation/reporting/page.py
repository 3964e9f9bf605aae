"""Page of one or several reports: a single HTML file that needs nothing beside itself."""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_robust.evaluation.reporting import charts, sentences, tables
from keras_robust.evaluation.reporting.charts import Panel
from keras_robust.evaluation.reporting.sections import sections
from keras_robust.evaluation.results import Picture, Report
from keras_robust.statistics import Estimate, Proportion

SMALL = 96  # up to this height, in pixels, images are shown enlarged and stored without loss
IN_A_ROW = 3  # pictures of a gallery


@dataclass(frozen=True)
class Cell:
    """One accuracy of the table: as text and as a number of percent, with its interval, and the colour of its model."""

    label: str
    text: str
    value: str
    interval: str
    style: int

    @classmethod
    def of(cls, label: str, share: Proportion | Estimate, style: int) -> "Cell":
        text, interval = share.percent.removesuffix(" %"), share.ends.replace("-", "–")
        return cls(label, text, f"{100 * share.value:.1f}", interval, style)


@dataclass(frozen=True)
class Row:
    """One line of the table of accuracies: a model at a resolution."""

    model: str
    style: int
    resolution: int
    cells: list[Cell]
    multiply_adds: str


@dataclass(frozen=True)
class Card:
    """One picture of the gallery: three images as data URLs, and what the model sees before and after."""

    images: list[tuple[str, str]]
    is_small: bool
    prediction: str
    adversarial_prediction: str


def page(reports: Mapping[str, Report]) -> str:
    """The HTML of one report, or of several side by side.

    Args:
        reports: one per model, by the name to show.

    Raises:
        ImportError: Jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise ImportError(f"the page needs {error.name}: pip install 'keras-robust[report]'") from error
    environment = Environment(
        loader=PackageLoader("keras_robust.evaluation.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    from markupsafe import Markup

    groups = {
        name: [Markup(charts.inline_svg(panel)) for panel in panels] for name, panels in chart_groups(reports).items()
    }
    return environment.get_template("report.html").render(
        title=sentences.title(reports),
        headlines=sentences.headlines(reports),
        several=len(reports) > 1,
        reports=reports,
        subtitles={name: sentences.subtitle(report) for name, report in reports.items()},
        columns=charts.labels(reports),
        rows=_rows(reports),
        charts=groups,
        pairs=tables.pairs_rows(reports),
        stages={name: tables.stages(report) for name, report in reports.items()},
        sections={name: sections(report) for name, report in reports.items()},
        gallery=_gallery(reports),
        notes=sentences.notes(reports),
        settings={name: json.dumps(r.settings.to_json(), indent=2, ensure_ascii=False) for name, r in reports.items()},
    )


def chart_groups(reports: Mapping[str, Report]) -> dict[str, list[Panel]]:
    """The charts that say something about these reports, by the name of their file; none that would repeat a table."""
    several = len(reports) > 1
    groups = {
        "accuracy_by_resolution": charts.panels_by_resolution(reports),
        "accuracy_by_radius": charts.panels_by_radius(reports),
        "reliability": charts.panels_of_reliability(reports),
        "accuracy_by_cost": charts.panels_by_cost(reports) if several else [],
    }
    if several and not groups["accuracy_by_resolution"]:
        groups["accuracy"] = charts.panels_side_by_side(reports)
    return {name: panels for name, panels in groups.items() if panels}


def _rows(reports: Mapping[str, Report]) -> list[Row]:
    rows = []
    for style, (name, report) in enumerate(reports.items()):
        for resolution in report.resolutions:
            cells = [Cell.of(label, share, style) for label, share in charts.columns(report, resolution).items()]
            cost = tables.giga(report.settings.model.multiply_adds.get(resolution))
            rows.append(Row(name, style, resolution, cells, cost))
    return rows


def _gallery(reports: Mapping[str, Report]) -> list[dict[str, Any]]:
    groups = []
    for name, report in reports.items():
        shown = [picture for picture in report.gallery if picture.resolution == report.resolutions[0]]
        for threat in dict.fromkeys(picture.threat for picture in shown):
            cards = [_card(picture, report.images.outputs) for picture in shown if picture.threat == threat]
            whole_rows = len(cards) // IN_A_ROW * IN_A_ROW or len(cards)
            heading = f"{f'{name}, ' if len(reports) > 1 else ''}{threat}, {report.resolutions[0]} px"
            groups.append({"heading": heading, "cards": cards[:whole_rows]})
    return groups


def _card(picture: Picture, outputs: tuple[str, ...]) -> Card:
    answers = [outputs[answer].replace("_", " ") for answer in (picture.prediction, picture.adversarial_prediction)]
    kinds = ("clean", "adversarial", "difference")
    images = [(kind, _data_url(pixels)) for kind, pixels in zip(kinds, picture.pixels)]
    return Card(images, picture.pixels.shape[1] <= SMALL, *answers)


def _data_url(pixels: np.ndarray) -> str:
    """A uint8 image (height, width, channels) as a data URL."""
    from PIL import Image

    kind, options = ("png", {}) if pixels.shape[0] <= SMALL else ("jpeg", {"quality": 88})
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
