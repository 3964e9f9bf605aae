"""Reports of several models side by side: a text table, a figure, JSON."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import keras
import numpy as np
from keras import ops

from keras_robust.attacks import Attack
from keras_robust.data import attack_sheet
from keras_robust.evaluation.robustness import Report

SCHEMA_VERSION = 1
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")  # of Okabe & Ito, told apart without red or green
MARKERS = "osD^"


@dataclass(frozen=True)
class Gallery:
    """What an attack did to a few images.

    Attributes:
        x, x_adv: float arrays of shape (n, height, width, channels).
        captions: n texts, to print above the images.
    """

    x: np.ndarray
    x_adv: np.ndarray
    captions: Sequence[str]

    @classmethod
    def of(cls, model: keras.Model, attack: Attack, x: np.ndarray, y: np.ndarray, class_names: Sequence[str]):
        """Attacks the images; each caption gives the class and what the model sees in the adversarial image."""
        x_adv = attack(model, x, y)
        predictions = ops.convert_to_numpy(model(ops.convert_to_tensor(x_adv), training=False)).argmax(axis=1)
        names = [textwrap.fill(name.replace("_", " "), 10) for name in class_names]
        return cls(x, x_adv, [f"{names[label]}\n→ {names[guess]}" for label, guess in zip(y, predictions)])


def table(reports: Mapping[str, Report]) -> str:
    """A text table with one row per resolution and threat model, and clean and robust accuracy of each model.

    Args:
        reports: one per model, by the name to print; all of the same threat models and resolutions.
    """
    head = f"{'':20}" + "".join(f"{name:>29}" for name in reports)
    lines = [head, f"{'pixels  threat':20}" + f"{'clean':>11}{'robust (95 %)':>18}" * len(reports)]
    for cell in next(iter(reports.values())).results:
        line = f"{cell.resolution:>6}  {cell.threat!s:12}"
        for report in reports.values():
            result = report[cell.threat, cell.resolution]
            low, high = result.robust_interval
            interval = f"({100 * low:.0f}-{100 * high:.0f})"
            line += f"{100 * result.clean_accuracy:9.1f} %{100 * result.robust_accuracy:8.1f} % {interval:8}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def write_json(reports: Mapping[str, Report], path: str | PathLike) -> Path:
    """Write settings, counts, accuracies and intervals of all reports as JSON."""
    models = {
        name: {"settings": report.settings, "results": [_summary(result) for result in report.results]}
        for name, report in reports.items()
    }
    content = {"schema_version": SCHEMA_VERSION, "models": models}
    path = Path(path)
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def _summary(result):
    return {
        "norm": result.threat.norm,
        "eps": result.threat.eps,
        "resolution": result.resolution,
        "n_examples": result.n_examples,
        "n_correct_after": {stage: int(np.sum(correct)) for stage, correct in result.correct.items()},
        "clean_accuracy": result.clean_accuracy,
        "clean_interval_95": result.clean_interval,
        "robust_accuracy": result.robust_accuracy,
        "robust_interval_95": result.robust_interval,
    }


def figure(reports: Mapping[str, Report], path: str | PathLike, galleries: Mapping[str, Gallery] | None = None) -> Path:
    """Draw accuracy against resolution, clean and under each threat model, and below it what the attacks did.

    Args:
        reports: one per model, by the name to print; all of the same threat models and resolutions. Up to four.
        path: of the PNG (or any other format of matplotlib) to write.
        galleries: images to show, by title.

    Returns:
        The path.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Figures are drawn by matplotlib: pip install 'keras-robust[quickstart]'") from error
    galleries = galleries or {}
    cells = next(iter(reports.values())).results
    threats, resolutions = (list(dict.fromkeys(values)) for values in zip(*((c.threat, c.resolution) for c in cells)))
    heights = [3.3] + [4.2] * len(galleries)  # inches
    drawing = Figure(figsize=(3 * (1 + len(threats)), sum(heights)), dpi=120, layout="constrained")
    top, *below = drawing.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    panels = top.subplots(1, 1 + len(threats), sharey=True)
    for (name, report), colour, marker in zip(reports.items(), COLOURS, MARKERS):
        style = {"label": name, "color": colour, "marker": marker, "capsize": 3}
        at = [report[threats[0], resolution] for resolution in resolutions]
        _curve(panels[0], resolutions, [(r.clean_accuracy, r.clean_interval) for r in at], style)
        for panel, threat in zip(panels[1:], threats):
            at = [report[threat, resolution] for resolution in resolutions]
            _curve(panel, resolutions, [(r.robust_accuracy, r.robust_interval) for r in at], style)
    for panel, title in zip(panels, ["no attack", *map(str, threats)]):
        panel.set(title=title, xticks=resolutions, xlabel="resolution (pixels)", ylim=(-4, 104))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy (%)")
    panels[0].legend(loc="lower left", fontsize="small")
    for part, (title, gallery) in zip(below, galleries.items()):
        _draw_gallery(part, title, gallery)
    drawing.savefig(path)
    return Path(path)


def _curve(panel, resolutions, points, style):
    accuracy = np.array([accuracy for accuracy, _ in points])
    low, high = np.array([interval for _, interval in points]).T
    panel.errorbar(resolutions, 100 * accuracy, 100 * np.stack([accuracy - low, high - accuracy]), **style)


def _draw_gallery(part, title, gallery):
    panel = part.subplots()
    panel.imshow(attack_sheet(gallery.x, gallery.x_adv, enlarge=4), interpolation="nearest")
    _, height, width, _ = gallery.x.shape
    rows = (np.arange(3) + 0.5) * (4 * height + 2)
    panel.set_yticks(rows, ["clean", "adversarial", "difference,\namplified"])
    panel.set_xticks((np.arange(len(gallery.x)) + 0.5) * (4 * width + 2), gallery.captions, fontsize="small")
    panel.tick_params(length=0, labeltop=True, labelbottom=False)
    panel.spines[:].set_visible(False)
    panel.set_title(title)
