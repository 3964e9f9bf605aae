"""Model card of an exported model, and the other texts that travel inside it."""

import json
from os import PathLike
from pathlib import Path

from keras_robust.export.metadata import ExportMetadata
from keras_robust.robustness import table

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
    resize = f"shorter side to {shorter} pixels ({sizes.interpolation}, antialiased; crop_pct {sizes.crop_pct:g}), "
    resize = "" if sizes.interpolation == "none" else resize
    facts = {
        "Task": metadata.task,
        "Architecture": metadata.model,
        "Preset": preset.name if preset else "none",
        "Classes": f"{metadata.num_classes}, names in `{CLASS_NAMES}`",
        "Trained against": f"{threat.norm}, radius {threat.eps:.6g} for pixels in [0, 1]" if threat else "not stated",
        "Images": f"RGB, height and width {extent}",
        "Evaluation preprocessing": f"{resize}centre crop of {sizes.resolution}",
        "Format": f"{metadata.format}, {metadata.dtype}",
        "Made with": ", ".join(f"{name} {number}" for name, number in metadata.versions.items()),
    }
    lines = [f"# {metadata.model}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {fact} |" for name, fact in facts.items()]
    if preset:
        lines += ["", f"Weights: {preset.source} (licence: {preset.licence})."]
    lines += ["", "## Robustness", "", *table(metadata.evaluation)]
    lines += ["", "## Inputs and outputs", ""]
    lines += [f"- `{name}`: {text}" for name, text in metadata.signatures.items()]
    return "\n".join(lines) + "\n"
