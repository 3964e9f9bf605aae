"""The outcome of an evaluation of a segmentation model, and its report: JSON, Markdown and pictures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from keras_robust.data.preprocessing import pillow
from keras_robust.files import write_text, written_aside
from keras_robust.segmentation.counts import PixelCounts, chosen, fewest_right, lowest_mean_iou
from keras_robust.threat import ThreatModel

PICTURES = 4  # images that are shown


@dataclass(frozen=True)
class ThreatFigures:
    """What is left of a model under one threat model.

    Attributes:
        threat: the threat model.
        attacks: by name, what the model's answers to its images come to.
        clean: of the images themselves.
        pictures: by attack, answers to the first images, int (n, height, width).
    """

    threat: ThreatModel
    attacks: Mapping[str, PixelCounts]
    clean: PixelCounts
    pictures: Mapping[str, np.ndarray]

    @property
    def _candidates(self) -> list[PixelCounts]:
        return [*self.attacks.values(), self.clean]

    @cached_property
    def worst_for_iou(self) -> PixelCounts:
        """Counts of the answers that together give the lowest mean IoU."""
        return chosen(self._candidates, lowest_mean_iou(self._candidates))

    @cached_property
    def worst_for_accuracy(self) -> PixelCounts:
        """Counts of each image's answer with the fewest right pixels."""
        return chosen(self._candidates, fewest_right(self._candidates))

    @property
    def worst_mean_iou(self) -> float:
        return self.worst_for_iou.mean_iou()

    @property
    def worst_pixel_accuracy(self) -> float:
        return self.worst_for_accuracy.pixel_accuracy()


@dataclass(frozen=True)
class SegmentationReport:
    """An evaluation of a segmentation model.

    Attributes:
        settings: what was evaluated, and how.
        class_names: in the order of the classes.
        clean: counts of the images themselves.
        threats: the figures of each threat model.
        warnings: what speaks against the figures, sentences.
        images, labels, answers: of the first images, for pictures.
    """

    settings: Mapping[str, Any]
    class_names: tuple[str, ...]
    clean: PixelCounts
    threats: tuple[ThreatFigures, ...]
    warnings: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    answers: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        """All figures, as JSON can hold them."""
        return {
            "settings": dict(self.settings),
            "class_names": list(self.class_names),
            "n_examples": len(self.clean.right),
            "clean": _figures(self.clean, self.clean),
            "threats": {
                each.threat.spec: {
                    "worst": _figures(each.worst_for_iou, each.worst_for_accuracy),
                    "attacks": {name: _figures(counts, counts) for name, counts in each.attacks.items()},
                }
                for each in self.threats
            },
            "warnings": list(self.warnings),
        }

    def table(self) -> str:
        """The figures as a Markdown table, in %, with 95 % intervals over the images."""
        rows = ["| threat | mean IoU | pixel accuracy | mean IoU by attack |", "| --- | ---: | ---: | --- |"]
        rows.append(f"| clean | {_cell(self.clean, 'mean_iou')} | {_cell(self.clean, 'pixel_accuracy')} | |")
        for each in self.threats:
            by_attack = ", ".join(f"{name} {100 * counts.mean_iou():.1f}" for name, counts in each.attacks.items())
            cells = (_cell(each.worst_for_iou, "mean_iou"), _cell(each.worst_for_accuracy, "pixel_accuracy"))
            rows.append(f"| SEA, {each.threat} | {cells[0]} | {cells[1]} | {by_attack} |")
        return "\n".join(rows) + "\n"


def write(report: SegmentationReport, folder: str | PathLike) -> None:
    """Writes `report.json`, `report.md` and `pictures.png` into a folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "report.json", json.dumps(report.as_dict(), indent=1) + "\n")
    settings = report.settings
    lines = [
        f"# Segmentation under SEA, {len(report.clean.right)} images\n",
        report.table(),
        f"Three attacks of {settings['n_iter']} iterations; of each image the worst case over these and the image "
        "itself. In brackets 95 % intervals by drawing the images anew.\n",
        *(f"- **Warning.** {text}" for text in report.warnings),
        "\n| class | clean IoU |" + "".join(f" {each.threat} |" for each in report.threats),
        "| --- | ---: |" + " ---: |" * len(report.threats),
    ]
    columns = [report.clean.iou(), *(each.worst_for_iou.iou() for each in report.threats)]
    for row, name in zip(np.transpose(columns), report.class_names):
        lines.append(f"| {name} |" + "".join(" - |" if np.isnan(value) else f" {100 * value:.1f} |" for value in row))
    lines.append(
        "\nImage, mask, answer, answer under the worst single attack of each threat model:\n\n![](pictures.png)\n"
    )
    write_text(folder / "report.md", "\n".join(lines))
    images, _ = pillow()
    with written_aside(folder / "pictures.png") as aside:
        images.fromarray(sheet(report)).save(aside, format="PNG")


def sheet(report: SegmentationReport) -> np.ndarray:
    """A row for each image: itself, its mask, the answer, and that under attack for each threat model; uint8 RGB."""
    palette = colours(len(report.class_names))
    columns = [_as_bytes(report.images), palette[report.labels], palette[report.answers]]
    for each in report.threats:
        worst = min(each.attacks, key=lambda name: each.attacks[name].mean_iou())
        columns.append(palette[each.pictures[worst]])
    count = min(map(len, columns))
    rows = [
        np.concatenate([np.pad(column[i], ((2, 2), (2, 2), (0, 0)), constant_values=255) for column in columns], 1)
        for i in range(count)
    ]
    return np.concatenate(rows)


def colours(num_classes: int) -> np.ndarray:
    """A colour for each class, uint8 (num_classes + 1, 3), and at -1 black: those of Pascal VOC, without its black.

    The bits of a class's number go in turn to the highest bits of red, green and blue.
    """
    numbers = np.arange(1, num_classes + 1)
    found = np.zeros((num_classes + 1, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            found[:-1, channel] |= ((numbers >> (3 * bit + channel)) & 1) << (7 - bit)
    return found.astype(np.uint8)


def _as_bytes(images: np.ndarray) -> np.ndarray:
    return images if images.dtype == np.uint8 else np.rint(np.asarray(images) * 255).astype(np.uint8)


def _cell(counts: PixelCounts, figure: str) -> str:
    low, high = counts.interval(figure)
    return f"{100 * getattr(counts, figure)():.1f} ({100 * low:.1f}-{100 * high:.1f})"


def _figures(for_iou: PixelCounts, for_accuracy: PixelCounts) -> dict[str, Any]:
    iou = [None if np.isnan(value) else float(value) for value in for_iou.iou()]
    return {
        "mean_iou": for_iou.mean_iou(),
        "mean_iou_interval": for_iou.interval("mean_iou"),
        "iou": iou,
        "pixel_accuracy": for_accuracy.pixel_accuracy(),
        "pixel_accuracy_interval": for_accuracy.interval("pixel_accuracy"),
        "mean_image_accuracy": for_accuracy.mean_image_accuracy(),
    }
