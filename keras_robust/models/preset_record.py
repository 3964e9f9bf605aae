"""Record of a saved preset, and its model card."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from keras_robust.models.presets import Preprocessing
from keras_robust.robustness import RobustnessRow, robustness_rows, table
from keras_robust.threat import ThreatModel

SCHEMA_VERSION = 1
# Licences by the Hub's names; others are "other", with their own.
HUB_LICENCES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause"),
    *("cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0"),
)


@dataclass(frozen=True)
class PresetRecord:
    """What is known of a saved preset; `preset.json` holds it.

    Attributes:
        name: of the model, for people.
        architecture: one of `keras_robust.models.names()`; None of other models.
        parameters: how many trainable weights.
        sha256, size: of the file of the model; the size in bytes.
        preprocessing: of its evaluation.
        class_names: of its outputs, in their order; None where they are not known.
        threat: of its training; None where it is not stated.
        evaluation: none without a report.
        licence, source: of the weights and where they are from; None where that is not stated.
        datasets: of the training, by the Hub's names; none where that is not stated.
        versions: of Python and of the packages that wrote it.
    """

    name: str
    architecture: str | None
    parameters: int
    sha256: str
    size: int
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None
    threat: ThreatModel | None
    evaluation: tuple[RobustnessRow, ...]
    licence: str | None
    source: str | None
    datasets: tuple[str, ...]
    versions: Mapping[str, str]

    def to_json(self) -> str:
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def of_json(cls, text: bytes, place: str) -> "PresetRecord":
        """The record that `to_json` wrote.

        Raises:
            ValueError: it is damaged, or of a later version; the message names `place`.
        """
        try:
            content = json.loads(text)
            version = content.pop("schema_version")
            if version != SCHEMA_VERSION:
                raise ValueError(f"its schema_version is {version!r}, this version reads {SCHEMA_VERSION}")
            names, threat = content["class_names"], content["threat"]
            return cls(
                **{
                    **content,
                    "preprocessing": Preprocessing(**content["preprocessing"]),
                    "class_names": names and tuple(str(name) for name in names),
                    "threat": threat and ThreatModel(**threat),
                    "evaluation": robustness_rows(content["evaluation"]),
                    "size": int(content["size"]),
                    "datasets": tuple(str(name) for name in content.get("datasets", ())),
                }
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{place} is not the record of a preset: {error}") from error


def card(record: PresetRecord) -> str:
    """The model card: the Hub's metadata, YAML that is JSON behind its keys, and Markdown."""
    how, threat = record.preprocessing, record.threat
    facts = {
        "Architecture": record.architecture or "not one of keras_robust's",
        "Parameters": f"{record.parameters:,}",
        "Images": "RGB, pixels in [0, 1]; normalisation, if any, is inside",
        "Evaluation preprocessing": f"{how.resolution} px, crop_pct {how.crop_pct:g}, {how.interpolation}",
        "Classes": "not named" if record.class_names is None else str(len(record.class_names)),
        "Trained against": "not stated" if threat is None else f"{threat.norm}, radius {threat.eps:.6g}",
        "Licence": record.licence or "not stated",
        "Source": record.source or "not stated",
        "Trained on": ", ".join(record.datasets) or "not stated",
        "Made with": ", ".join(f"{name} {number}" for name, number in record.versions.items()),
        "SHA-256 of the model": record.sha256,
    }
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in _metadata(record).items()), "---"]
    lines += ["", f"# {record.name}", "", "An image classifier for Keras 3, with what is known of its robustness.", ""]
    lines += [
        "```python",
        "import keras_robust as kr",
        "",
        'model = kr.models.from_preset("FOLDER or hf://OWNER/NAME")',
    ]
    lines += ["```", "", "| | |", "|---|---|", *(f"| {name} | {fact} |" for name, fact in facts.items())]
    lines += ["", "## Robustness", "", *table(record.evaluation)]
    return "\n".join(lines) + "\n"


def _metadata(record: PresetRecord) -> dict[str, Any]:
    """What the Hub reads at the top of a model card."""
    metadata: dict[str, Any] = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["keras", "keras-robust", "adversarial-robustness"],
    }
    if record.licence is not None:
        name = record.licence.lower()
        known = name in HUB_LICENCES
        metadata |= {"license": name} if known else {"license": "other", "license_name": record.licence}
    if record.datasets:
        metadata["datasets"] = list(record.datasets)
    if record.evaluation:
        metadata["model-index"] = [{"name": record.name, "results": [_result(row) for row in record.evaluation]}]
    return metadata


def _result(row: RobustnessRow) -> dict[str, Any]:
    figures = {"clean": row.clean_accuracy, f"under attack, {row.norm} {row.eps:.4g}": row.robust_accuracy}
    return {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {"type": "images", "name": f"{row.n_examples} images of {row.resolution} pixels"},
        "metrics": [{"type": "accuracy", "name": f"Accuracy, {how}", "value": value} for how, value in figures.items()],
    }
