"""Result store: what a long evaluation has found so far, one small file per batch, each replaced as a whole."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from keras_robust.attacks.sampling import Sample
from keras_robust.evaluation.image_selection import Selection
from keras_robust.evaluation.settings import EvaluationSettings, ImageSetSettings
from keras_robust.files import read_json, write_text, written_aside
from keras_robust.npz import read_arrays
from keras_robust.threat import ThreatModel

FOLDER = "state"
SETS = "sets"  # in it, a folder for each set of other images
_KEY = "answers/"  # before the version of the images, which may be ""
IMAGES = "images.npz"


@dataclass(frozen=True)
class Grid:
    """The cells of an evaluation, threat models at resolutions, and the batches in which they are worked out.

    Attributes:
        attacks: names of the attacks of each threat model, in the order run.
    """

    threats: tuple[ThreatModel, ...]
    resolutions: tuple[int, ...]
    attacks: tuple[tuple[str, ...], ...]
    n_examples: int
    batch_size: int

    @classmethod
    def of(cls, settings: EvaluationSettings) -> "Grid":
        return cls(
            tuple(each.threat for each in settings.threats),
            settings.resolutions,
            tuple(tuple(each.attacks) for each in settings.threats),
            settings.images.n_examples,
            settings.batch_size,
        )

    @property
    def n_batches(self) -> int:
        return -(-self.n_examples // self.batch_size)

    @property
    def batches(self) -> list[tuple[int, int]]:
        """All (resolution, batch number)."""
        return [(resolution, batch) for resolution in self.resolutions for batch in range(self.n_batches)]

    def rows(self, batch: int) -> slice:
        """The images of a batch."""
        return slice(batch * self.batch_size, min(self.n_examples, (batch + 1) * self.batch_size))

    def of_set(self, image_set: ImageSetSettings) -> "Grid":
        """The batches of other images, which meet no attack."""
        return replace(self, threats=(), attacks=(), n_examples=image_set.n_examples)


@dataclass
class CellBatch:
    """One batch of images under one threat model.

    Attributes:
        misclassified: attack -> images that it made the model misclassify, booleans (n,).
        evaluations: attack -> evaluations of the model spent on each image, int32 (n,).
        unconfirmed: attack -> successes that do not count.
        seconds: attack -> how long it took.
        adversarial_prediction: the model's answer to what the attacks made of each image, int32 (n,).
        perturbation_norm: of each successful perturbation, float32 (n,).
        pictures: place of an image in the batch -> uint8 (3, height, width, channels), clean, adversarial, difference.
        extra: what was asked for besides, by the names that `AttackResult` has for it, (n, ...).
        sample: of the images that met all attacks; None where all did, or before it is drawn.
    """

    adversarial_prediction: np.ndarray
    perturbation_norm: np.ndarray
    misclassified: dict[str, np.ndarray] = field(default_factory=dict)
    evaluations: dict[str, np.ndarray] = field(default_factory=dict)
    unconfirmed: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    pictures: dict[int, np.ndarray] = field(default_factory=dict)
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    sample: Sample | None = None


@dataclass
class BatchResult:
    """The results of one batch of images at one resolution.

    Attributes:
        prediction: the model's answers, int32 (n,), -1 where they are NaN.
        cells: one for each threat model.
        warnings: reasons to doubt the figures that the model showed on these images.
    """

    prediction: np.ndarray
    cells: list[CellBatch]
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, prediction: np.ndarray, n_threats: int) -> "BatchResult":
        """A batch that has not met an attack yet."""
        blank = np.zeros(len(prediction), np.float32)
        return cls(prediction, [CellBatch(prediction.copy(), blank.copy()) for _ in range(n_threats)])

    def is_complete(self, grid: Grid) -> bool:
        """Whether the batch has met all its attacks."""
        return all(name in cell.misclassified for cell, names in zip(self.cells, grid.attacks) for name in names)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it as arrays by name, as they are stored."""
        found = {"prediction": self.prediction, "warnings": np.array(self.warnings, dtype=str)}
        for place, cell in enumerate(self.cells):
            found[f"{place}/perturbation_norm"] = cell.perturbation_norm
            found[f"{place}/adversarial_prediction"] = cell.adversarial_prediction
            for name in cell.misclassified:
                found[f"{place}/misclassified/{name}"] = cell.misclassified[name]
                found[f"{place}/evaluations/{name}"] = cell.evaluations[name]
                found[f"{place}/unconfirmed/{name}"] = np.asarray(cell.unconfirmed[name])
                found[f"{place}/seconds/{name}"] = np.asarray(cell.seconds[name])
            if cell.sample is not None:
                found |= {f"{place}/{name}": array for name, array in cell.sample.arrays().items()}
            for position, picture in cell.pictures.items():
                found[f"{place}/pictures/{position}"] = picture
            for name, values in cell.extra.items():
                found[f"{place}/extra/{name}"] = values
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "BatchResult":
        """The batch that `arrays` stored.

        Raises:
            KeyError, ValueError: the arrays are others.
        """
        result = cls.of(arrays["prediction"], 1 + max(int(key.split("/")[0]) for key in arrays if "/" in key))
        result.warnings = tuple(str(warning) for warning in arrays["warnings"])
        for place, cell in enumerate(result.cells):
            cell.perturbation_norm = arrays[f"{place}/perturbation_norm"]
            cell.adversarial_prediction = arrays[f"{place}/adversarial_prediction"]
            cell.sample = Sample.from_arrays(arrays, f"{place}/")
        for key, array in arrays.items():
            number, _, rest = key.partition("/")
            kind, slash, name = rest.partition("/")
            if not slash:
                continue
            cell = result.cells[int(number)]
            if kind == "pictures":
                cell.pictures[int(name)] = array
            elif kind in ("unconfirmed", "seconds"):
                getattr(cell, kind)[name] = array.item()
            else:
                getattr(cell, kind)[name] = array
        counts = {
            len(each)
            for cell in result.cells
            for each in (
                cell.perturbation_norm,
                cell.adversarial_prediction,
                *cell.misclassified.values(),
                *(() if cell.sample is None else (cell.sample.probability, cell.sample.drawn)),
            )
        }
        if counts != {len(result.prediction)}:
            raise ValueError(f"its arrays are of {sorted({*counts, len(result.prediction)})} images")
        return result


@dataclass(frozen=True)
class Images:
    """The images of an evaluation: all that a report says of them.

    Attributes:
        index: their places in the dataset, int64 (n,).
        label: the model's output that is right for each, int64 (n,).
        digest: hash of each image's raw pixels, uint64 (n,).
        name: file names or places, strings (n,).
        outputs: names of the model's outputs.
        skipped: images that could not be read, each with the reason.
    """

    index: np.ndarray
    label: np.ndarray
    digest: np.ndarray
    name: np.ndarray
    outputs: tuple[str, ...]
    skipped: tuple[str, ...]

    @classmethod
    def of(cls, selection: Selection) -> "Images":
        names = np.array(selection.names, dtype=str)
        return cls(selection.index, selection.labels, selection.digests, names, selection.outputs, selection.skipped)

    def arrays(self) -> dict[str, np.ndarray]:
        texts = {"outputs": np.array(self.outputs, dtype=str), "skipped": np.array(self.skipped, dtype=str)}
        return {"index": self.index, "label": self.label, "digest": self.digest, "name": self.name, **texts}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "Images":
        outputs, skipped = (tuple(str(each) for each in arrays[key]) for key in ("outputs", "skipped"))
        return cls(arrays["index"], arrays["label"], arrays["digest"], arrays["name"], outputs, skipped)


class ResultStore:
    """Results of batches by (resolution, batch number), kept in `out/state`, or in memory where `out` is None.

    Args:
        settings: all that decides the outcome.
        out: folder of the report.

    Raises:
        ValueError: the folder holds the results of other settings; the message says which.
    """

    def __init__(self, settings: EvaluationSettings, out: str | PathLike | None) -> None:
        self._memory: dict[tuple[int, int], BatchResult] = {}
        self._answers: dict[tuple[str, int, int], dict[str, np.ndarray]] = {}
        self._folder = None if out is None else Path(out) / FOLDER
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / "settings.json"
            if path.exists():
                there = read_settings(path.parent)
                check_same(settings.to_json(), there.to_json(), f"{path.parent} holds the state of another evaluation")
            else:
                write_text(path, json.dumps(settings.to_json(), indent=2) + "\n")

    def read(self, resolution: int, batch: int) -> BatchResult | None:
        """What is known of a batch: None before it was looked at."""
        if self._folder is None:
            return self._memory.get((resolution, batch))
        return read_batch(self._folder, resolution, batch)

    def write(self, resolution: int, batch: int, result: BatchResult) -> None:
        """Replace what is known of a batch."""
        if self._folder is None:
            self._memory[resolution, batch] = result
        else:
            write_arrays(_file(self._folder, resolution, batch), result.arrays())

    def read_answers(self, name: str, resolution: int, batch: int) -> dict[str, np.ndarray]:
        """The answers to a batch of other images that are known: version of the images -> int32 (n,)."""
        if self._folder is None:
            return dict(self._answers.get((name, resolution, batch), {}))
        return read_answers(self._folder, name, resolution, batch)

    def write_answers(self, name: str, resolution: int, batch: int, answers: Mapping[str, np.ndarray]) -> None:
        """Replace what is known of a batch of other images."""
        if self._folder is None:
            self._answers[name, resolution, batch] = dict(answers)
        else:
            write_arrays(
                _file(self._folder / SETS / name, resolution, batch), {_KEY + key: a for key, a in answers.items()}
            )

    def write_images(self, arrays: Mapping[str, np.ndarray], name: str | None = None) -> None:
        """Keep which images there are, so that a report can be made without the dataset; other images by their name."""
        if self._folder is not None:
            folder = self._folder if name is None else self._folder / SETS / name
            folder.mkdir(parents=True, exist_ok=True)
            write_arrays(folder / IMAGES, arrays)


def read_settings(folder: Path) -> EvaluationSettings:
    path = folder / "settings.json"
    if not path.exists():
        raise ValueError(f"{folder} holds no state of an evaluation: there is no {path.name}.")
    try:
        return EvaluationSettings.from_json(read_json(path))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not readable ({error}): remove {folder} to start anew.") from error


def read_images(folder: Path) -> Images:
    path = folder / IMAGES
    try:
        return Images.from_arrays(read_arrays(path))
    except KeyError as error:
        raise ValueError(f"{path} is damaged: {error} is missing.") from error


def read_set_images(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Labels and hashes of images that met no attack."""
    return read_arrays(folder / SETS / name / IMAGES)


def read_batch(folder: Path, resolution: int, batch: int) -> BatchResult | None:
    path = _file(folder, resolution, batch)
    if not path.exists():
        return None
    try:
        return BatchResult.from_arrays(read_arrays(path))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): remove it, and what it held is done again.") from error


def read_answers(folder: Path, name: str, resolution: int, batch: int) -> dict[str, np.ndarray]:
    path = _file(folder / SETS / name, resolution, batch)
    if not path.exists():
        return {}
    try:
        return {key.removeprefix(_KEY): answers for key, answers in read_arrays(path).items()}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it, and what it held is done again.") from error


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file, whole or not at all."""
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def check_same(here: Mapping[str, Any], there: Mapping[str, Any], what: str) -> None:
    """Raise a ValueError that names the settings, as JSON, in which two evaluations differ."""
    differences = list(_differences(here, there))
    if differences:
        raise ValueError(f"{what}: {'; '.join(differences[:5])}. Take another folder for this one, or remove that one.")


def _differences(here: Any, there: Any, where: str = "") -> Iterable[str]:
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for key in dict.fromkeys([*here, *there]):
            yield from _differences(here.get(key), there.get(key), f"{where}.{key}" if where else str(key))
    elif json.dumps(here) != json.dumps(there):
        yield f"{where} is {_short(here)} here and {_short(there)} there"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _file(folder: Path, resolution: int, batch: int) -> Path:
    return folder / f"{resolution}px-{batch:05d}.npz"
