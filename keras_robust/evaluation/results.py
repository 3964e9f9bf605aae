"""What an evaluation found: one model under threat models at resolutions, image by image, and its files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np

from keras_robust.attacks import sanity_checks
from keras_robust.evaluation.result_store import read_arrays, write_arrays
from keras_robust.evaluation.statistics import Proportion
from keras_robust.files import write_text
from keras_robust.threat import ThreatModel

SCHEMA = "keras_robust.evaluation"
SCHEMA_VERSION = 2
RADII_NOTE = (
    "The radii do not change with the resolution. A pixel may move by the same amount at any size under Linf; the L2 "
    "and L1 norms add up over pixels, so that their radii become weaker threats as images grow, and stronger as they "
    "shrink."
)


@dataclass(frozen=True)
class Result:
    """One model under one threat model at one resolution.

    Attributes:
        threat: the `ThreatModel`.
        resolution: side of the images, in pixels.
        stages: "clean" and the attacks, in the order run.
        broken_by: place in `stages` of what broke each image, int16 (n,), 0 where it was misclassified all along;
            len(stages) where nothing did.
        prediction, adversarial_prediction: the model's answer to each image, and to what the attacks made of it, (n,).
        size: norm of each successful perturbation, float32 (n,), 0 where there is none.
        evaluations: attack -> evaluations of the model spent on each image (gradient steps or queries), int (n,).
        unconfirmed: attack -> successes that the uncompiled model in float32 did not confirm, and that do not count.
    """

    threat: ThreatModel
    resolution: int
    stages: tuple[str, ...]
    broken_by: np.ndarray
    prediction: np.ndarray
    adversarial_prediction: np.ndarray
    size: np.ndarray
    evaluations: Mapping[str, np.ndarray]
    unconfirmed: Mapping[str, int]

    @property
    def n_examples(self):
        return len(self.broken_by)

    @property
    def correct(self):
        """Images still classified correctly at first and after each attack: name -> booleans (n,)."""
        return {stage: self.broken_by > place for place, stage in enumerate(self.stages)}

    @property
    def robust(self):
        """Images that no attack broke, booleans (n,)."""
        return self.broken_by == len(self.stages)

    @property
    def accuracy_after(self):
        """Fractions of 1: "clean" and every attack, in the order run."""
        return {stage: float(np.mean(correct)) for stage, correct in self.correct.items()}

    @property
    def clean(self):
        """The clean accuracy with its 95 % interval, a `Proportion`."""
        return Proportion.of(self.broken_by > 0)

    @property
    def robust_share(self):
        """The robust accuracy with its 95 % interval, a `Proportion`."""
        return Proportion.of(self.robust)

    @property
    def clean_accuracy(self):
        return self.clean.value

    @property
    def robust_accuracy(self):
        return self.robust_share.value

    @property
    def clean_interval(self):
        """95 % Wilson interval of the clean accuracy."""
        return self.clean.interval

    @property
    def robust_interval(self):
        """95 % Wilson interval of the robust accuracy."""
        return self.robust_share.interval


@dataclass(frozen=True)
class Picture:
    """One image of a gallery: uint8 (3, side, side, 3), clean, adversarial and difference; what it is, what is seen."""

    threat: ThreatModel
    resolution: int
    pixels: np.ndarray
    label: int
    prediction: int
    adversarial_prediction: int


@dataclass(frozen=True)
class Report:
    """Results of one model, and all that gives them again.

    `report[threat, resolution]` is the `Result` of that cell.

    Attributes:
        settings: model, data, preprocessing, threat models, attacks, seed, versions of packages.
        results: one per resolution and threat model.
        images: arrays (n,): "index", "label", "digest" (hash of the raw pixels) and "name".
        outputs: names of the model's outputs.
        skipped: images that could not be read, each with the reason.
        doubts: reasons to doubt the figures that showed while attacking; `warnings` adds those that the figures show.
        multiply_adds: resolution -> multiply-adds of a forward pass on one image, None where they cannot be counted.
        gallery: a few images and what the attacks made of them.
    """

    settings: Mapping
    results: Sequence[Result]
    images: Mapping[str, np.ndarray]
    outputs: Sequence[str]
    skipped: Sequence[str] = ()
    doubts: Sequence[str] = ()
    multiply_adds: Mapping[int, int | None] = field(default_factory=dict)
    gallery: Sequence[Picture] = ()

    def __getitem__(self, key):
        return {(result.threat, result.resolution): result for result in self.results}[key]

    @property
    def name(self):
        return self.settings["model"]["name"]

    @property
    def n_examples(self):
        return len(self.images["index"])

    @property
    def threats(self):
        return list(dict.fromkeys(result.threat for result in self.results))

    @property
    def resolutions(self):
        return list(dict.fromkeys(result.resolution for result in self.results))

    def robust_to_all(self, resolution: int) -> np.ndarray:
        """Images that no attack under any threat model broke, booleans (n,): worst case per image."""
        return np.all([self[threat, resolution].robust for threat in self.threats], axis=0)

    def union(self, resolution: int) -> Proportion:
        """Union accuracy: the share of images that are robust under all threat models, with its interval."""
        return Proportion.of(self.robust_to_all(resolution))

    @property
    def warnings(self):
        """Reasons to doubt the figures, a sentence each."""
        found = list(self.doubts)
        for result in self.results:
            where = f"At {result.resolution} px, {result.threat}: "
            found += [where + doubt for doubt in sanity_checks.of_result(result.accuracy_after)]
        for resolution in self.resolutions:
            for norm in dict.fromkeys(threat.norm for threat in self.threats):
                accuracies = {
                    threat.eps: self[threat, resolution].robust_accuracy
                    for threat in self.threats
                    if threat.norm == norm
                }
                found += [f"At {resolution} px, {norm}: {doubt}" for doubt in sanity_checks.of_radii(accuracies)]
        if self.skipped:
            found.append(f"Skipped: {len(self.skipped)} images could not be read, and were replaced by others if any.")
        return list(dict.fromkeys(found))

    def save(self, folder: str | PathLike) -> Path:
        """Write `report.json` and, beside it, `per_image.npz` and `gallery.npz`; returns the path of the first."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_arrays(folder / "per_image.npz", self._arrays())
        pictures = {str(number): picture.pixels for number, picture in enumerate(self.gallery)}
        write_arrays(folder / "gallery.npz", pictures)
        path = folder / "report.json"
        write_text(path, json.dumps(self._summary(), indent=2, ensure_ascii=False) + "\n")
        return path

    @classmethod
    def load(cls, path: str | PathLike) -> "Report":
        """Read a `report.json` and the `per_image.npz` and `gallery.npz` beside it.

        Raises:
            ValueError: a file is missing, damaged or of another version of the schema.
        """
        path = Path(path)
        path = path / "report.json" if path.is_dir() else path
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.get("schema") != SCHEMA or content.get("schema_version") != SCHEMA_VERSION:
                found = f"{content.get('schema')!r} version {content.get('schema_version')!r}"
                raise ValueError(f"accepted is {SCHEMA!r} version {SCHEMA_VERSION}, received {found}")
            return cls._from(content, *(read_arrays(path.with_name(name)) for name in ("per_image.npz", "gallery.npz")))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} cannot be read as a report: {error!r}") from error

    def _arrays(self):
        arrays = dict(self.images)
        for number, result in enumerate(self.results):
            for name in ("broken_by", "prediction", "adversarial_prediction", "size"):
                arrays[f"{number}/{name}"] = getattr(result, name)
            for name, evaluations in result.evaluations.items():
                arrays[f"{number}/evaluations/{name}"] = evaluations
        return arrays

    def _summary(self):
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "settings": self.settings,
            "warnings": self.warnings,
            "results": [_describe(result) for result in self.results],
            "union": [
                {"resolution": resolution, **_proportion("union", self.union(resolution))}
                for resolution in self.resolutions
            ],
            "multiply_adds": {str(resolution): count for resolution, count in self.multiply_adds.items()},
            "doubts": list(self.doubts),
            "skipped": list(self.skipped),
            "outputs": list(self.outputs),
            "gallery": [
                {
                    "norm": picture.threat.norm,
                    "eps": picture.threat.eps,
                    "resolution": picture.resolution,
                    "label": picture.label,
                    "prediction": picture.prediction,
                    "adversarial_prediction": picture.adversarial_prediction,
                }
                for picture in self.gallery
            ],
            "per_image": "per_image.npz",
        }

    @classmethod
    def _from(cls, content, arrays, pictures):
        results = []
        for number, cell in enumerate(content["results"]):
            stages = tuple(cell["n_correct_after"])
            results.append(
                Result(
                    ThreatModel(cell["norm"], cell["eps"]),
                    cell["resolution"],
                    stages,
                    *(
                        arrays[f"{number}/{name}"]
                        for name in ("broken_by", "prediction", "adversarial_prediction", "size")
                    ),
                    {name: arrays[f"{number}/evaluations/{name}"] for name in stages[1:]},
                    cell["unconfirmed"],
                )
            )
        gallery = [
            Picture(
                ThreatModel(entry["norm"], entry["eps"]),
                entry["resolution"],
                pictures[str(number)],
                *(entry[name] for name in ("label", "prediction", "adversarial_prediction")),
            )
            for number, entry in enumerate(content["gallery"])
        ]
        return cls(
            content["settings"],
            results,
            {name: arrays[name] for name in ("index", "label", "digest", "name")},
            content["outputs"],
            content["skipped"],
            content["doubts"],
            {int(resolution): count for resolution, count in content["multiply_adds"].items()},
            gallery,
        )


def _describe(result):
    return {
        "norm": result.threat.norm,
        "eps": result.threat.eps,
        "resolution": result.resolution,
        "n_examples": result.n_examples,
        "n_correct_after": {stage: int(np.sum(correct)) for stage, correct in result.correct.items()},
        **_proportion("clean", result.clean),
        **_proportion("robust", result.robust_share),
        "unconfirmed": dict(result.unconfirmed),
        "mean_evaluations": {name: float(np.mean(each)) for name, each in result.evaluations.items()},
    }


def _proportion(name, share):
    return {f"{name}_accuracy": share.value, f"{name}_interval_95": list(share.interval)}
