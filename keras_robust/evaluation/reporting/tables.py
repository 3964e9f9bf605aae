"""Tables of reports: for the terminal, as Markdown, and for the page."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras_robust.evaluation.comparison import Difference, attacked_otherwise, differences
from keras_robust.evaluation.reporting import sentences
from keras_robust.evaluation.reporting.sections import sections
from keras_robust.evaluation.results import ALL, Report
from keras_robust.threat import ThreatModel


def table(reports: Mapping[str, Report]) -> str:
    """A text table with one row per resolution and threat model, and clean and robust accuracy of each model.

    Warnings of the reports follow it.

    Args:
        reports: one per model, by the name to print; cells that only some have are left empty in the others.
    """
    reports = sentences.marked(reports)
    head = f"{'':20}" + "".join(f"{name[-27:]:>29}" for name in reports)
    lines = [head, f"{'pixels  threat':20}" + f"{'clean':>11}{'robust (95 %)':>18}" * len(reports)]
    cells = dict.fromkeys((r.resolution, r.threat) for report in reports.values() for r in report.results)
    for resolution in dict.fromkeys(resolution for resolution, _ in cells):
        rows = [(str(threat), threat) for place, threat in cells if place == resolution]
        for label, threat in [*rows, *([("all", None)] if len(rows) > 1 else [])]:
            line = f"{resolution:>6}  {label:12}"
            line += "".join(_cell(report, resolution, threat) for report in reports.values())
            lines.append(line.rstrip())
    return "\n".join([*lines, *sentences.cautions(reports)])


def _cell(report: Report, resolution: int, threat: ThreatModel | None) -> str:
    if resolution not in report.resolutions or (threat is not None and threat not in report.threats):
        return " " * 29
    clean = report[report.threats[0], resolution].clean_accuracy
    share = report.union(resolution) if threat is None else report[threat, resolution].robust
    return f"{100 * clean:9.1f} %{share.percent:>10} {f'({share.ends})':8}"


def pairs(reports: Mapping[str, Report]) -> list[tuple[str, str, list[Difference], str | None]]:
    """Each model against the first, image by image.

    Returns:
        For each other model: its name, that of the first, the `Difference` of each figure, and why there are none, or
        none under attack, where the two did not see the same images or meet the same attacks.
    """
    (first_name, first), *others = reports.items()
    found: list[tuple[str, str, list[Difference], str | None]] = []
    for name, second in others:
        if not first.saw_same_images(second):
            found.append((name, first_name, [], "not the same images: no paired test"))
            continue
        if first.is_estimated or second.is_estimated:
            found.append((name, first_name, [], sentences.NO_PAIRED_TEST))
            continue
        rows = differences(first, second)
        figures = ", ".join(attacked_otherwise(first, second))
        reason = sentences.OTHER_ATTACKS.format(figures=figures) if figures else None
        found.append((name, first_name, rows, reason if rows else "no resolution in common"))
    return found


def pairs_rows(reports: Mapping[str, Report]) -> list[dict[str, Any]]:
    """`pairs` as text, for the page: name, first, reason, and rows of cells."""
    found = []
    for name, first, rows, reason in pairs(reports):
        cells = [[f"{row.resolution} px", row.label, row.text, *row.only, row.p_value] for row in rows]
        found.append({"name": name, "first": first, "reason": reason, "rows": cells})
    return found


def pairs_table(reports: Mapping[str, Report]) -> str:
    """Paired tests of each model against the first, as text."""
    lines = []
    for name, first, rows, reason in pairs(sentences.marked(reports)):
        lines += ["", f"{name} against {first}, image by image{f': {reason}' if reason else ''}"]
        for row in rows:
            line = f"{row.resolution:>6}  {row.label:22}{row.text:32}"
            lines.append(line + f"{' : '.join(row.only):>10}   p {row.p_value}" if row.p_value else line.rstrip())
    return "\n".join(lines)


def grid(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of accuracies by resolution and threat model."""
    many = len(report.threats) > 1
    header = ["pixels", "clean", *map(str, report.threats), *([ALL] if many else []), "multiply-adds"]
    rows = []
    for resolution in report.resolutions:
        cells = [str(report[threat, resolution].robust) for threat in report.threats]
        clean = str(report[report.threats[0], resolution].clean)
        union = [str(report.union(resolution))] if many else []
        rows.append([str(resolution), clean, *cells, *union, giga(report.settings.model.multiply_adds.get(resolution))])
    return header, rows


def stages(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of accuracies after each attack."""
    names = list(dict.fromkeys(stage for result in report.results for stage in result.stages))
    rows = []
    for result in report.results:
        after = result.shares
        cells = [after[name].percent if name in after else "" for name in names]
        rows.append([str(result.resolution), str(result.threat), *cells])
    return ["pixels", "threat model", *names], rows


def giga(count: int | None) -> str:
    return "not known" if count is None else f"{count / 1e9:.2f} G" if count >= 1e8 else f"{count / 1e6:.2f} M"


def markdown(reports: Mapping[str, Report]) -> str:
    """One or several reports as Markdown."""
    parts = [f"# {sentences.title(reports)}", *sentences.headlines(reports)]
    for name, report in reports.items():
        parts += [f"## {name}"] if len(reports) > 1 else []
        parts.append(sentences.subtitle(report))
        parts += ["\n".join(f"- **Warning.** {warning}" for warning in report.warnings)] if report.warnings else []
        parts += ["Accuracy by resolution and threat model:", markdown_rows(*grid(report))]
        parts += ["After each attack, in the order run:", markdown_rows(*stages(report))]
        for section in sections(report):
            parts += [f"### {section.heading}", section.note, markdown_rows(section.header, section.rows)]
        if report.images.skipped:
            parts += ["Images that could not be read:", "\n".join(f"- {reason}" for reason in report.images.skipped)]
    for name, first, rows, reason in pairs(reports) if len(reports) > 1 else ():
        parts.append(f"## {name} against {first}")
        body = [[str(row.resolution), row.label, row.text, *row.only, row.p_value] for row in rows]
        header = ["pixels", "figure", "difference (95 %)", f"only {name}", f"only {first}", "p (exact McNemar)"]
        parts += [reason] if reason else []
        parts += [markdown_rows(header, body)] if body else []
    parts += ["## Reading it", "\n".join(f"- {note}" for note in sentences.notes(reports))]
    parts.append("## Settings")
    for name, report in reports.items():
        parts.append(f"{name}:\n\n```json\n{json.dumps(report.settings.to_json(), indent=2)}\n```")
    return "\n\n".join(parts) + "\n"


def markdown_rows(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
