"""Evaluated robustness of a model, as records that travel with it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from keras_robust.files import read_json


@dataclass(frozen=True)
class RobustnessRow:
    """One cell of an evaluation: accuracies as fractions of 1, the interval of the robust one at 95 %."""

    norm: str
    eps: float
    resolution: int
    n_examples: int
    clean_accuracy: float
    robust_accuracy: float
    robust_interval_95: tuple[float, float]


def robustness_rows(report: Any) -> tuple[RobustnessRow, ...]:
    """The cells of a `kr.evaluation.Report`, of its report.json, or of rows of that; none without a report.

    Cells of threat models without a bound, whose accuracy says nothing by itself, are left out.

    Raises:
        ValueError: a row lacks something, or the file is no report.
    """
    if report is None:
        return ()
    if isinstance(report, (str, PathLike)):
        try:
            report = read_json(report)["results"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"report must be the report.json of an evaluation; received {str(report)!r}.") from error
    rows = _rows_of_report(report) if hasattr(report, "results") else report
    names = list(RobustnessRow.__dataclass_fields__)
    for row in rows:
        missing = [name for name in names if name not in row] if isinstance(row, Mapping) else names
        if missing:
            raise ValueError(
                f"report must be rows with {', '.join(names)}; one lacks {', '.join(missing)}: {row!r:.200}"
            )
    cells = ({name: row[name] for name in names} for row in rows if row["eps"] not in (None, math.inf))
    return tuple(RobustnessRow(**{**cell, "robust_interval_95": tuple(cell["robust_interval_95"])}) for cell in cells)


def _rows_of_report(report: Any) -> Sequence[Mapping[str, Any]]:
    names = ("resolution", "n_examples", "clean_accuracy", "robust_accuracy")
    return [
        {
            "norm": cell.threat.norm,
            "eps": cell.threat.eps,
            "robust_interval_95": cell.robust.interval,
            **{name: getattr(cell, name) for name in names},
        }
        for cell in report.results
    ]


def table(rows: Sequence[RobustnessRow]) -> Iterator[str]:
    """The lines of a table in Markdown, or a sentence that there was no evaluation."""
    if not rows:
        yield "Not evaluated: no report came with this model."
        return
    yield "| pixels | threat | images | clean % | robust % | 95 % interval |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        low, high = row.robust_interval_95
        yield (
            f"| {row.resolution} | {row.norm} {row.eps:.4g} | {row.n_examples} "
            f"| {100 * row.clean_accuracy:.1f} | {100 * row.robust_accuracy:.1f} "
            f"| {100 * low:.1f} to {100 * high:.1f} |"
        )
