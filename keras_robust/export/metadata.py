"""Metadata of an exported model: what is known about it, and travels inside it as `metadata.json`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from keras_robust.export.tasks import CLASSIFICATION
from keras_robust.robustness import RobustnessRow, robustness_rows
from keras_robust.threat import ThreatModel

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class InputMetadata:
    """Sizes of the images that a model takes, and the preprocessing of its evaluation.

    Attributes:
        min_size, max_size: of height and width, in pixels; they are multiples of `multiple_of`.
        resolution: of the evaluation, in pixels.
        crop_pct: resolution over the shorter side that an image is resized to.
        interpolation: "bicubic" or "bilinear"; "none" for a crop without a resize.
    """

    min_size: int
    multiple_of: int
    max_size: int
    resolution: int
    crop_pct: float
    interpolation: str


@dataclass(frozen=True)
class PresetMetadata:
    """The published checkpoint that the weights are: its name, where it is from, and under which licence."""

    name: str
    source: str
    licence: str


@dataclass(frozen=True)
class ExportMetadata:
    """All that is known about an exported model.

    Attributes:
        model: its name, for people.
        format, dtype: of the artefact.
        signatures: what can be called, and what it takes and gives.
        class_names: of the outputs, in order.
        input: see there.
        preset: None where the weights are not a published checkpoint's.
        threat: of the training, None where it is not stated.
        evaluation: none without a report.
        versions: of Python, packages and the backend.
        task: one of `TASKS`.
        withholding_layers: see `keras_robust.attacks.sanity_checks.withholding_layers`.
    """

    model: str
    format: str
    dtype: str
    signatures: Mapping[str, str]
    class_names: tuple[str, ...]
    input: InputMetadata
    preset: PresetMetadata | None
    threat: ThreatModel | None
    evaluation: tuple[RobustnessRow, ...]
    versions: Mapping[str, str]
    task: str = CLASSIFICATION
    withholding_layers: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def to_json(self) -> dict[str, Any]:
        """The metadata as what `json` writes."""
        found = asdict(self)
        lists = {name: list(found[name]) for name in ("class_names", "evaluation", "withholding_layers")}
        return {"schema_version": SCHEMA_VERSION, "num_classes": self.num_classes, **found, **lists}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ExportMetadata":
        """The metadata that `to_json` made."""
        known = {name: value for name, value in content.items() if name not in ("schema_version", "num_classes")}
        preset, threat = content["preset"], content["threat"]
        return cls(
            **{
                **known,
                "class_names": tuple(content["class_names"]),
                "input": InputMetadata(**content["input"]),
                "preset": preset and PresetMetadata(**preset),
                "threat": threat and ThreatModel(**threat),
                "evaluation": robustness_rows(content["evaluation"]),
                "withholding_layers": tuple(content.get("withholding_layers", ())),
            }
        )


def attach(model: Any, document: str | None) -> None:
    """Gives a loaded model what its `metadata.json` says: `class_names`, `withholding_layers`, and `preprocessing`.

    Raises:
        ValueError: the document is none.
    """
    if document is None:
        return
    try:
        content = json.loads(document)
        model.class_names = tuple(str(name) for name in content["class_names"])
        model.preprocessing = InputMetadata(**content["input"])
        model.withholding_layers = tuple(str(name) for name in content.get("withholding_layers", ()))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"its metadata.json is damaged: {error}") from error
