"""Model card of an exported model, and the other texts that travel inside it."""

import json
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from keras_robust.export.metadata import ExportMetadata

MODEL_CARD, METADATA, CLASS_NAMES = "model_card.md", "metadata.json", "class_names.txt"


def documents(metadata: ExportMetadata) -> dict[str, str]:
    """The texts to put into an artefact, by file name."""
    return {
        METADATA: json.dumps(metadata.to_json(), indent=2) + "\n",
        CLASS_NAMES: "".join(f"{name}\n" for name in metadata.class_names),
        MODEL_CARD: model_card(metadata),
    }


def write_documents(folder: str | PathLike, metadata: ExportMetadata) -> list[Path]:
    """Write `documents` into a folder; returns their paths."""
    paths = []
    for name, text in documents(metadata).items():
        paths.append(Path(folder) / name)
        paths[-1].write_text(text, encoding="utf-8")
    return paths


def model_card(metadata: ExportMetadata) -> str:
    """The card, in Markdown."""
    sizes, threat, preset = metadata.input, metadata.threat, metadata.preset
    extent = f"{sizes.min_size} to {sizes.max_size} pixels"
    extent += f", multiples of {sizes.multiple_of}" if sizes.multiple_of > 1 else ""
    shorter = int(sizes.resolution / sizes.crop_pct)
    facts = {
        "Architecture": metadata.model,
        "Preset": preset.name if preset else "none",
        "Classes": f"{metadata.num_classes}, names in `{CLASS_NAMES}`",
        "Trained against": f"{threat.norm}, radius {threat.eps:.6g} for pixels in [0, 1]" if threat else "not stated",
        "Images": f"RGB, height and width {extent}",
        "Evaluation preprocessing": (
            f"shorter side to {shorter} pixels ({sizes.interpolation}, antialiased), "
            f"centre crop of {sizes.resolution} (crop_pct {sizes.crop_pct:g})"
        ),
        "Format": f"{metadata.format}, {metadata.dtype}",
        "Made with": ", ".join(f"{name} {number}" for name, number in metadata.versions.items()),
    }
    lines = [f"# {metadata.model}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {fact} |" for name, fact in facts.items()]
    if preset:
        lines += ["", f"Weights: {preset.source} (licence: {preset.licence})."]
    lines += ["", "## Robustness", "", *_robustness(metadata)]
    lines += ["", "## Inputs and outputs", ""]
    lines += [f"- `{name}`: {text}" for name, text in metadata.signatures.items()]
    return "\n".join(lines) + "\n"


def _robustness(metadata: ExportMetadata) -> Iterator[str]:
    rows = metadata.evaluation
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
