"""What travels with a model: metadata, class names, a card to read."""

import json
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path

import keras

MODEL_CARD, METADATA, CLASS_NAMES = "model_card.md", "metadata.json", "class_names.txt"
SCHEMA_VERSION = 1
ROW = ("norm", "eps", "resolution", "n_examples", "clean_accuracy", "robust_accuracy", "robust_interval_95")


def documents(metadata):
    """The texts to put into an artefact, by file name."""
    return {
        METADATA: json.dumps(metadata, indent=2) + "\n",
        CLASS_NAMES: "".join(f"{name}\n" for name in metadata["class_names"]),
        MODEL_CARD: model_card(metadata),
    }


def write_documents(folder, metadata):
    """Write `documents` into a folder; returns their paths."""
    paths = []
    for name, text in documents(metadata).items():
        paths.append(Path(folder) / name)
        paths[-1].write_text(text, encoding="utf-8")
    return paths


def versions():
    """Versions of Python and of the packages that take part, where they are installed; the backend of the original."""
    found = {"python": sys.version.split()[0], "backend": keras.backend.backend()}
    for package in ("keras-robust", "keras", "tensorflow", "jax", "torch", "onnx", "tf2onnx", "pillow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def robustness_rows(report):
    """Rows of `ROW`: of a `kr.evaluation.Report`, of its report.json, or of rows of that; none without a report.

    Raises:
        ValueError: a row lacks one of them, or the file is no report.
    """
    if report is None:
        return []
    if isinstance(report, (str, PathLike)):
        try:
            report = json.loads(Path(report).read_text(encoding="utf-8"))["results"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"report must be the report.json of an evaluation; received {str(report)!r}.") from error
    if hasattr(report, "results"):
        report = [
            {
                "norm": cell.threat.norm,
                "eps": cell.threat.eps,
                "robust_interval_95": cell.robust_interval,
                **{
                    name: getattr(cell, name)
                    for name in ("resolution", "n_examples", "clean_accuracy", "robust_accuracy")
                },
            }
            for cell in report.results
        ]
    for row in report:
        missing = [name for name in ROW if name not in row] if isinstance(row, Mapping) else [*ROW]
        if missing:
            raise ValueError(f"report must be rows with {', '.join(ROW)}; one lacks {', '.join(missing)}: {row!r:.200}")
    return [{name: row[name] for name in ROW} for row in report]


def model_card(metadata):
    """The card, in Markdown."""
    sizes, threat, preset = metadata["input"], metadata["threat"], metadata["preset"]
    sides = f"{sizes['min_size']} to {sizes['max_size']} pixels"
    sides += f", multiples of {sizes['multiple_of']}" if sizes["multiple_of"] > 1 else ""
    shorter = int(sizes["resolution"] / sizes["crop_pct"])
    facts = {
        "Architecture": metadata["model"],
        "Preset": preset["name"] if preset else "none",
        "Classes": f"{metadata['num_classes']}, names in `{CLASS_NAMES}`",
        "Trained against": f"{threat['norm']}, radius {threat['eps']:.6g} for pixels in [0, 1]"
        if threat
        else "not stated",
        "Images": f"RGB, height and width {sides}",
        "Evaluation preprocessing": (
            f"shorter side to {shorter} pixels ({sizes['interpolation']}, antialiased), "
            f"centre crop of {sizes['resolution']} (crop ratio {sizes['crop_pct']:g})"
        ),
        "Format": f"{metadata['format']}, {metadata['dtype']}",
        "Made with": ", ".join(f"{name} {number}" for name, number in metadata["versions"].items()),
    }
    lines = [f"# {metadata['model']}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {fact} |" for name, fact in facts.items()]
    if preset:
        lines += ["", f"Weights: {preset['source']} (licence: {preset['licence']})."]
    lines += ["", "## Robustness", "", *_robustness(metadata)]
    lines += ["", "## Inputs and outputs", ""]
    lines += [f"- `{name}`: {text}" for name, text in metadata["signatures"].items()]
    return "\n".join(lines) + "\n"


def _robustness(metadata):
    rows = metadata["evaluation"]
    if not rows:
        yield "Not evaluated: no report came with this model."
        return
    yield "| pixels | threat | images | clean % | robust % | 95 % interval |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        low, high = row["robust_interval_95"]
        yield (
            f"| {row['resolution']} | {row['norm']} {row['eps']:.4g} | {row['n_examples']} "
            f"| {100 * row['clean_accuracy']:.1f} | {100 * row['robust_accuracy']:.1f} "
            f"| {100 * low:.1f} to {100 * high:.1f} |"
        )
