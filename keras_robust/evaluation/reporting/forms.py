"""Forms in which others read results: tables for papers, rows of images for spreadsheets, RobustBench's entries."""

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence

from keras_robust.checks import check_choice
from keras_robust.evaluation import robustbench
from keras_robust.evaluation.reporting import charts, sentences, tables
from keras_robust.evaluation.results import Report
from keras_robust.statistics import Estimate, Proportion

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
NORMS = {"Linf": r"$\ell_\infty$", "L2": r"$\ell_2$", "L1": r"$\ell_1$", "L0": r"$\ell_0$"}


def latex(reports: Mapping[str, Report]) -> str:
    r"""Accuracies as a LaTeX table of the package booktabs, in % with 95 % intervals, a row per model and resolution.

    Names are escaped. `\usepackage{booktabs}` is all that it needs. What "~" marks and warnings follow as comments.
    """
    header, rows = _accuracies(reports, lambda low, high: rf"{{\scriptsize ({low:.1f}--{high:.1f})}}")
    head = [_norm_in_latex(escaped(cell)) for cell in header]
    body = [[*map(escaped, row[:3]), *(cell.replace("~", r"$\sim$") for cell in row[3:])] for row in rows]
    lines = [" & ".join(line) + r" \\" for line in (head, *body)]
    return "\n".join(
        [
            r"\begin{tabular}{llr" + "c" * (len(header) - 3) + "}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            *(f"% {sentence}" for sentence in sentences.cautions(sentences.marked(reports))),
        ]
    )


def markdown(reports: Mapping[str, Report]) -> str:
    """The same as a Markdown table, and a list of what "~" marks and of warnings below it."""
    header, rows = _accuracies(reports, lambda low, high: f"({low:.1f}-{high:.1f})")
    named = [[_literal(row[0]), *row[1:]] for row in rows]
    cautions = [f"- {_literal(sentence)}" for sentence in sentences.cautions(sentences.marked(reports))]
    return "\n".join([tables.markdown_rows(header, named), *([""] if cautions else []), *cautions])


def per_image_csv(reports: Mapping[str, Report]) -> str:
    """A row for each image in each cell of each report, as comma-separated values; see `Report.per_image`."""
    columns = {name: report.per_image() for name, report in reports.items()}
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(itertools.chain(*columns.values()))), lineterminator="\n")
    writer.writeheader()
    for name, found in columns.items():
        writer.writerows(dict(zip(found, row)) | {"model": name} for row in zip(*found.values()))
    return file.getvalue().rstrip("\n")


def entries(reports: Mapping[str, Report]) -> str:
    """RobustBench's entries as JSON: of one report its `model_info`, of several one for each name."""
    found = {name: robustbench.entry(report) for name, report in reports.items()}
    return json.dumps(found if len(found) > 1 else next(iter(found.values())), indent=2, ensure_ascii=False)


FORMS: dict[str, Callable[[Mapping[str, Report]], str]] = {
    "text": tables.table,
    "markdown": markdown,
    "latex": latex,
    "csv": per_image_csv,
    "robustbench": entries,
}


def render(reports: Mapping[str, Report], form: str) -> str:
    """Reports in a form that others read.

    Args:
        reports: one per model, by the name to show.
        form: "text", "markdown", "latex" (accuracies), "csv" (a row per image) or "robustbench" (JSON).

    Raises:
        ValueError: another form, or no reports.

    Example:
        >>> print(kr.evaluation.render(dict(mine=kr.evaluation.Report.load("runs/mine")), "latex"))  # doctest: +SKIP
    """
    check_choice("form", form, tuple(FORMS))
    if not reports:
        raise ValueError("reports must hold at least one report; received none.")
    return FORMS[form](reports)


def escaped(text: str) -> str:
    """A text as LaTeX prints it."""
    return re.sub(r"[\\~^&%$#_{}]", lambda found: SPECIAL[found[0]], text)


def _literal(text: str) -> str:
    """A text as Markdown prints it."""
    return re.sub(r"([\\`*_<>\[\]~])", r"\\\1", text)


def _norm_in_latex(label: str) -> str:
    norm, space, radius = label.partition(" ")
    return f"{NORMS[norm]}{space}{radius}" if norm in NORMS else label


def _accuracies(
    reports: Mapping[str, Report], interval: Callable[[float, float], str]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: model, attack, pixels and the accuracies that any of the reports has, "" where one lacks it."""
    labels = charts.labels(reports)

    def cell(shares: Mapping[str, Proportion | Estimate], label: str) -> str:
        if label not in shares:
            return ""
        low, high = (100 * end for end in shares[label].interval)
        return f"{shares[label].percent.removesuffix(' %')} {interval(low, high)}"

    rows: list[list[str]] = []
    for name, report in sentences.marked(reports).items():
        for resolution in report.resolutions:
            shares = charts.columns(report, resolution)
            rows.append([name, sentences.attack(report), str(resolution), *(cell(shares, label) for label in labels)])
    header: Sequence[str] = [
        "model",
        "attack",
        "pixels",
        *("clean" if label == charts.NO_ATTACK else label for label in labels),
    ]
    return list(header), rows
