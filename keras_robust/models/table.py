"""Table of the models: parameters and multiply-adds, counted on the graph, beside the published values."""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape

import keras

from keras_robust.checks import check_choice, check_number
from keras_robust.models.architecture import Architecture
from keras_robust.models.cost import multiply_adds, parameters
from keras_robust.models.presets import PRESETS, Preset
from keras_robust.models.registry import ARCHITECTURES, create, names

# Parameters in 10^6 and multiply-adds in 10^9 at 224 pixels and 1,000 classes, as the publications state them. (The
# 25.0 of ResNet-50 is a slip of the publication: it has 25.6.)
PUBLISHED: dict[str, tuple[float | None, float]] = {
    "resnet50": (25.0, 4.1),
    "xcit_small": (26.0, 4.8),
    "swin_small": (50.0, 8.7),
    "swin_base": (87.7, 15.5),
    "swin_large": (197.0, 34.5),
    "robarch_small": (26.1, 6.3),
    "robarch_large": (104.0, 25.7),
    "vit_small": (22.1, 4.6),
    "vit_small_convstem": (22.8, 5.0),
    "vit_medium": (None, 8.0),
    "vit_medium_convstem": (None, 8.4),
    "vit_base": (86.6, 17.6),
    "vit_base_convstem": (87.1, 17.9),
    "convnext_isotropic_small": (22.3, 4.3),
    "convnext_isotropic_small_convstem": (None, 4.7),
    "convnext_tiny": (28.6, 4.5),
    "convnext_tiny_convstem": (28.6, 4.6),
    "convnext_small": (None, 8.7),
    "convnext_small_convstem": (None, 8.8),
    "convnext_base": (88.6, 15.4),
    "convnext_base_convstem": (88.8, 16.0),
    "convnext_large": (None, 34.4),
    "convnext_large_convstem": (None, 35.5),
    "convnextv2_large": (198.0, 34.4),
}


NUMBER = re.compile(r"-|[\d,]*\.?\d+")
SORTS = ("linf", "clean", "l2", "l1", "parameters")


@dataclass(frozen=True, repr=False)
class ModelTable:
    """Rows of strings under a header; "-" where there is no value.

    Attributes:
        notes: sentences that must be read with the figures, below them.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def _numeric(self) -> list[bool]:
        """Whether each column holds numbers alone, which are put to the right."""
        return [all(NUMBER.fullmatch(row[i]) for row in self.rows) for i in range(len(self.header))]

    def __repr__(self) -> str:
        columns = zip(*(self.header, *self.rows))
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join(
                cell.rjust(width) if numeric else cell.ljust(width)
                for cell, width, numeric in zip(line, widths, self._numeric)
            )
            for line in (self.header, *self.rows)
        ]
        return "\n".join((*lines, *self.notes))

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in self.header)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<table><tr>{head}</tr>{body}</table>{notes}"

    def markdown(self) -> str:
        ruler = ("---:" if numeric else "---" for numeric in self._numeric)
        lines = ("| " + " | ".join(line) + " |" for line in (self.header, ruler, *self.rows))
        return "\n".join((*lines, *(f"\n{note}" for note in self.notes)))

    def csv(self) -> str:
        file = io.StringIO()
        lines = ([cell.replace(",", "") for cell in line] for line in (self.header, *self.rows))
        csv.writer(file, lineterminator="\n").writerows(lines)
        return file.getvalue()


def table(models: Sequence[str] | None = None, resolutions: Sequence[int] = (224,)) -> ModelTable:
    """The models with parameters, multiply-adds and published accuracies; nothing is trained or run.

    The accuracies (clean, and under AutoAttack at Linf 4/255, L2 2 and L1 75, in %) are those of the preset of that
    architecture with the highest one at Linf; `presets` has all, with their sources. Notes say which of them are
    known to be too high.

    Args:
        models: names; all of `names()` if not given.
        resolutions: in pixels, for multiply-adds in 10^9.

    Example:
        >>> kr.models.table(["vit_tiny"]).rows[0][:3]
        ('vit_tiny', '5,717,416', '1.25')
    """
    header = ("model", "parameters", *(f"G at {resolution}" for resolution in resolutions))
    header += ("published M", "published G at 224", "clean", "Linf", "L2", "L1")
    listed = names() if models is None else models
    best = (_best(name) for name in listed)
    notes = tuple(preset.caution for preset in best if preset is not None and preset.caution)
    return ModelTable(header, tuple(_row(name, resolutions) for name in listed), notes)


def _row(name: str, resolutions: Sequence[int]) -> tuple[str, ...]:
    # In a stateless scope variables have shapes, but no values.
    with keras.StatelessScope(initialize_variables=False):
        model = create(name)
        giga = [_giga_multiply_adds(model, resolution) for resolution in resolutions]
    best = _best(name)
    accuracies = (None,) * 4 if best is None else (best.clean, best.linf, best.l2, best.l1)
    stated = [*PUBLISHED.get(name, (None, None)), *accuracies]
    keras.utils.clear_session()
    cells = ["-" if value is None else str(value) for value in stated]
    return (name, f"{parameters(model):,}", *giga, *cells)


def published(most_parameters: float | None = None, sort: str = "linf") -> ModelTable:
    """The board: the published checkpoints with figures, licence and where their file is, the best first.

    Figures under another radius are not comparable: checkpoints trained at 8/255 come after those at 4/255.

    Args:
        most_parameters: only checkpoints of at most so many, in 10^6; those whose architecture this version does not
            have are left out then.
        sort: by which figure: "linf" (the lowest that anybody reported), "clean", "l2", "l1" or "parameters" (the
            smallest first). Notes say which figures of AutoAttack others have undercut.

    Example:
        >>> board = kr.models.published(most_parameters=30)
        >>> board.rows[0][:3]
        ('convnext_tiny_convstem_300ep', 'Singh2023Revisiting_ConvNeXt-T-ConvStem', 'convnext_tiny_convstem')
    """
    check_choice("sort", sort, SORTS)
    if most_parameters is not None:
        check_number("most_parameters", most_parameters)
    architectures = {row.architecture for row in PRESETS.values()}
    counts = {name: _count(name, ARCHITECTURES.get(name)) for name in architectures}
    found = dict(PRESETS)
    if most_parameters is not None:
        known = {name: count for name, count in counts.items() if count is not None}
        found = {k: row for k, row in found.items() if known.get(row.architecture, math.inf) <= 1e6 * most_parameters}

    def place(name: str) -> tuple[float, ...]:
        row = found[name]
        figures = {"parameters": counts[row.architecture], "linf": row.lowest}
        figure = figures[sort] if sort in figures else getattr(row, sort)
        least = math.inf if figure is None else figure if sort == "parameters" else -figure
        return row.threat[1], least, -row.lowest

    header = (
        *("preset", "RobustBench's id", "architecture", "M parameters", "px", "clean", "Linf", "at", "others' Linf"),
        *("L2", "L1", "images", "licence", "file"),
    )
    ordered = sorted(found, key=place)
    rows = (_published_row(name, found[name], counts[found[name].architecture]) for name in ordered)
    notes = (f"{name}: {found[name].caution}" for name in ordered if found[name].caution)
    return ModelTable(header, tuple(rows), tuple(notes))


def _published_row(name: str, row: Preset, count: int | None) -> tuple[str, ...]:
    cells = [
        *(name, row.robustbench, row.architecture, None if count is None else f"{count / 1e6:.1f}"),
        *(row.preprocessing.resolution, row.clean, row.linf, f"{round(255 * row.threat[1])}/255", row.external),
        *(row.l2, row.l1, row.n_examples, row.licence),
    ]
    where = "architecture missing" if count is None else (row.file or "by hand").split(":")[0]
    return (*("-" if cell is None else str(cell) for cell in cells), where)


@cache
def _count(name: str, row: Architecture | None) -> int | None:
    """Parameters of an architecture; None of one that there is not."""
    if row is None:
        return None
    with keras.StatelessScope(initialize_variables=False):
        return parameters(create(name))


def _best(architecture: str) -> Preset | None:
    """The preset of an architecture that is best at Linf 4/255; None where there is none."""
    found = [row for row in PRESETS.values() if row.architecture == architecture and row.threat == ("Linf", 4 / 255)]
    return max(found, key=lambda preset: preset.lowest, default=None)


def _giga_multiply_adds(model: keras.Model, resolution: int) -> str:
    try:
        return f"{multiply_adds(model, resolution) / 1e9:.2f}"
    except ValueError:  # a resolution that the model cannot take
        return "-"
