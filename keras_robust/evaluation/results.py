"""Results of an evaluation: one model under threat models at resolutions, image by image, and their files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from keras_robust.attacks import AttackResult, sanity_checks
from keras_robust.attacks.result import Curve
from keras_robust.attacks.sampling import Sample
from keras_robust.evaluation.result_store import Images, write_arrays
from keras_robust.evaluation.settings import EvaluationSettings, ImageSetSettings
from keras_robust.files import read_json, write_text
from keras_robust.npz import read_arrays
from keras_robust.statistics import Estimate, Proportion
from keras_robust.threat import ThreatModel

ALL = "all threat models"
CORRUPTIONS = "corruptions"  # the set of corrupted versions of the images attacked
PER_IMAGE = ("misclassified_at", "prediction", "adversarial_prediction", "perturbation_norm")
EXTRA = ("rounded_prediction", "certainty", "adversarial_certainty")  # where asked for
TAKEN = {"order": "for these in their order", "number": "as numbers of these, counted from 0"}
SCHEMA = "keras_robust.evaluation"
SCHEMA_VERSION = 4
RADII_NOTE = (
    "The radii do not change with the resolution. A pixel may move by the same amount at any size under Linf; the L2 "
    "and L1 norms add up over pixels, so that their radii become weaker threats as images grow, and stronger as they "
    "shrink."
)


@dataclass(frozen=True)
class Picture:
    """One image of a gallery, what it is and what the model sees in it.

    `pixels` are uint8 (3, resolution, resolution, channels): clean, adversarial, amplified difference.
    """

    threat: ThreatModel
    resolution: int
    pixels: np.ndarray
    label: int
    prediction: int
    adversarial_prediction: int


@dataclass(frozen=True)
class ImageSetResult:
    """A model's answers to a set of images at one resolution.

    Attributes:
        settings: of the set.
        resolution: in pixels.
        label, digest: see `ImageSet`, (n,).
        predictions: version -> the model's answers, int32 (n,).
    """

    settings: ImageSetSettings
    resolution: int
    label: np.ndarray
    digest: np.ndarray
    predictions: Mapping[str, np.ndarray]

    @property
    def correct(self) -> dict[str, np.ndarray]:
        """Version -> images that are classified correctly, booleans (n,)."""
        return {version: answers == self.label for version, answers in self.predictions.items()}

    @property
    def accuracies(self) -> dict[str, Proportion]:
        return {version: Proportion.of(correct) for version, correct in self.correct.items()}

    @property
    def is_corrupted(self) -> bool:
        """Whether these are corrupted versions of the images attacked."""
        return self.settings.name == CORRUPTIONS


@dataclass(frozen=True, repr=False)
class Report:
    """Results of one model, and all that gives them again.

    `report[threat, resolution]` is the `AttackResult` of that cell; `report.curve(norm)` is the robust accuracy at
    every radius, where the nearest adversarial images were looked for.

    Attributes:
        settings: model, data, preprocessing, threat models, attacks, seed, versions of packages.
        results: one per resolution and threat model.
        images: which ones, and those that could not be read.
        attack_warnings: reasons to doubt the figures that showed while attacking; `warnings` adds those that the
            figures show.
        gallery: a few images and what the attacks made of them.
        image_sets: answers to other images, without an attack, one per set and resolution.
    """

    settings: EvaluationSettings
    results: Sequence[AttackResult]
    images: Images
    attack_warnings: Sequence[str] = ()
    gallery: Sequence[Picture] = ()
    image_sets: Sequence[ImageSetResult] = ()

    def __getitem__(self, key: tuple[ThreatModel, int]) -> AttackResult:
        return {(result.threat, result.resolution): result for result in self.results}[key]

    @property
    def name(self) -> str:
        return self.settings.model.name

    @property
    def n_examples(self) -> int:
        return len(self.images.index)

    @property
    def threats(self) -> list[ThreatModel]:
        """The threat models with a radius, whose accuracies are told; all of them if none has one."""
        found = list(dict.fromkeys(result.threat for result in self.results))
        return [threat for threat in found if threat.is_bounded] or found

    @property
    def norms(self) -> list[str]:
        """The norms of all threat models."""
        return list(dict.fromkeys(result.threat.norm for result in self.results))

    def has_curve(self, norm: str) -> bool:
        """Whether there is a threat model of this norm without a bound, and so a curve."""
        return any(result.threat.norm == norm and not result.threat.is_bounded for result in self.results)

    def curve(self, norm: str, resolution: int | None = None) -> Curve:
        """The robust accuracy at every radius, from the nearest adversarial image of each image.

        The nearest of all attacks under this norm: what an attack in a ball broke counts at its distance, too, so that
        the curve never lies above the robust accuracy that was found at a radius.

        Args:
            norm: of a threat model without a bound.
            resolution: in pixels; by default the first.

        Raises:
            ValueError: nothing was evaluated under this norm without a bound, or at this resolution.

        Example:
            >>> net = keras.Sequential(
            ...     [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
            ... )
            >>> threats = [kr.ThreatModel("L2", None), kr.ThreatModel("L2", 0.5)]
            >>> report = kr.evaluation.evaluate(
            ...     net, kr.data.photo_crops("val"), threats, [16], [kr.attacks.FMN("L2", 20)], 8, verbose=False
            ... )
            >>> report.curve("L2").at(0.5).value <= report[threats[1], 16].robust_accuracy
            True
        """
        resolution = self.resolutions[0] if resolution is None else resolution
        cells = [each for each in self.results if each.threat.norm == norm and each.resolution == resolution]
        if all(cell.threat.is_bounded for cell in cells):
            raise ValueError(
                f"norm must be that of a threat model without a bound, as ThreatModel({norm!r}, None), at a resolution "
                f"that was evaluated; received {norm!r} and {resolution!r}."
            )
        return Curve(norm, np.min([cell.distances for cell in cells], axis=0))

    @property
    def resolutions(self) -> list[int]:
        return list(dict.fromkeys(result.resolution for result in self.results))

    def robust_to_all(self, resolution: int) -> np.ndarray:
        """Images that no attack under any threat model succeeded on, booleans (n,): the worst case per image.

        Raises:
            ValueError: some of them did not meet all the attacks.
        """
        return np.all([self[threat, resolution].is_robust for threat in self.threats], axis=0)

    def union(self, resolution: int) -> Proportion | Estimate:
        """Union accuracy: the share of images that are robust under all threat models, with its interval."""
        if not self.is_estimated:
            return Proportion.of(self.robust_to_all(resolution))
        cells = [self[threat, resolution] for threat in self.threats]
        unbroken = [cell.is_unbroken for cell in cells]
        samples = [cell.sample for cell in cells if cell.sample is not None]
        return Sample.of_all(samples, unbroken).estimate(np.all(unbroken, axis=0))

    @property
    def is_estimated(self) -> bool:
        """Whether robust accuracies are estimates, from a sample of the images that cheap attacks left."""
        return any(result.sample is not None for result in self.results)

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt the figures, a sentence each."""
        found = list(self.attack_warnings)
        labels = np.bincount(self.images.label)
        for resolution in self.resolutions:
            counts = np.bincount(np.maximum(self[self.threats[0], resolution].prediction, 0))
            found += [f"At {resolution} px: {warning}" for warning in sanity_checks.of_answers(counts, labels)]
        cells = {
            f"{result.resolution} px {result.threat}": result.robust
            for result in self.results
            if result.threat.is_bounded
        }
        found += sanity_checks.of_chance(cells, labels)
        found += sanity_checks.of_sample(self.n_examples)
        if self.settings.images.matched_by == "number":
            found.append(
                "Classes by number: the dataset has fewer classes than the model, and its names were taken as "
                "numbers of the model's outputs, counted from 0."
            )
        for result in self.results:
            where = f"At {result.resolution} px, {result.threat}: "
            found += [where + warning for warning in sanity_checks.of_result(result.accuracy_after)]
        for resolution in self.resolutions:
            for norm in dict.fromkeys(threat.norm for threat in self.threats if not self.is_estimated):
                accuracies = {
                    threat.eps: self[threat, resolution].robust_accuracy
                    for threat in self.threats
                    if threat.norm == norm
                }
                found += [f"At {resolution} px, {norm}: {warning}" for warning in sanity_checks.of_radii(accuracies)]
            for norm in filter(self.has_curve, self.norms):
                found += [
                    f"At {resolution} px, {norm}: {warning}"
                    for warning in sanity_checks.of_distances(self.curve(norm, resolution).distances)
                ]
        skipped = len(self.images.skipped)
        if skipped:
            found.append(f"Skipped: {skipped} images could not be read, and were replaced by others if any.")
        for each in self.settings.image_sets:
            if each.matched_by != "name":
                found.append(
                    f"Classes of {each.name} by {each.matched_by}: they are called otherwise than the model's outputs, "
                    f"and were taken {TAKEN[each.matched_by]}."
                )
            if each.skipped:
                found.append(
                    f"Skipped: {each.skipped} images of {each.name} could not be read, and were replaced by others if "
                    "any."
                )
        return list(dict.fromkeys(found))

    def __repr__(self) -> str:
        lines = [f"{self.name}, {self.n_examples} images"]
        for result in self.results:
            lines.append(f"{result.resolution} px {result.threat}: robust {result.robust}, clean {result.clean}")
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{result.resolution} px</td><td>{escape(str(result.threat))}</td><td>{result.clean}</td>"
            f"<td>{result.robust}</td></tr>"
            for result in self.results
        )
        warnings = "".join(f"<p><b>Warning.</b> {escape(warning)}</p>" for warning in self.warnings)
        return (
            f"<p>{escape(self.name)}, {self.n_examples} images</p><table><tr><th></th><th></th><th>clean</th>"
            f"<th>robust</th></tr>{rows}</table>{warnings}"
        )

    def write_json(self, folder: str | PathLike) -> Path:
        """Write `report.json` and, beside it, `per_image.npz` and `gallery.npz`; returns the path of the first."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_arrays(folder / "per_image.npz", self._arrays())
        pictures = {str(number): picture.pixels for number, picture in enumerate(self.gallery)}
        write_arrays(folder / "gallery.npz", pictures)
        path = folder / "report.json"
        write_text(path, json.dumps(self._summary(), indent=2, ensure_ascii=False) + "\n")
        return path

    def per_image(self) -> dict[str, np.ndarray]:
        """Columns of a table with a row for each image in each cell; those of a text are strings, `eps` may be inf.

        `label` and the predictions are places in `images.outputs`; `misclassified_by` is the stage that the model first
        failed at, "" where it never did, "left out" where a sample left the image out before it met all attacks.
        Of such an image the adversarial prediction is -1, the norm of the perturbation NaN. Confidences and the answers
        to rounded images are there where asked for.
        """
        columns: dict[str, list[np.ndarray]] = {}
        n = self.n_examples
        for result in self.results:
            row = {
                "model": np.full(n, self.name),
                "resolution": np.full(n, result.resolution),
                "norm": np.full(n, result.threat.norm),
                "eps": np.full(n, result.threat.eps),
                "index": self.images.index,
                "image": self.images.name,
                "label": self.images.label,
                "prediction": result.prediction,
                "adversarial_prediction": result.adversarial_prediction,
                "misclassified_by": result.misclassified_by,
                "perturbation_norm": result.perturbation_norm,
                "propagations": result.propagations,
            }
            if result.certainty is not None and result.adversarial_certainty is not None:
                row["confidence"] = result.certainty[:, 0]
                row["adversarial_confidence"] = result.adversarial_certainty[:, 0]
            if result.rounded_prediction is not None:
                row["rounded_prediction"] = result.rounded_prediction
            for name, values in row.items():
                columns.setdefault(name, []).append(values)
        return {name: np.concatenate(parts) for name, parts in columns.items()}

    def to_frame(self) -> Any:
        """The table of `per_image` as a pandas DataFrame.

        Raises:
            ImportError: pandas is not installed.

        Example:
            >>> net = keras.Sequential(
            ...     [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
            ... )
            >>> attacks = [kr.attacks.FGSM(kr.ThreatModel("L2", 0.5), returns="misclassified")]
            >>> report = kr.evaluation.evaluate(
            ...     net, kr.data.photo_crops("val"), [kr.ThreatModel("L2", 0.5)], [16], attacks, 8, verbose=False
            ... )
            >>> frame = report.to_frame()  # doctest: +SKIP
            >>> frame.groupby(["resolution", "norm", "eps"])["misclassified_by"].value_counts()  # doctest: +SKIP
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(f"a DataFrame needs {error.name}: pip install pandas") from error
        return pandas.DataFrame(self.per_image())

    def saw_same_images(self, other: "Report") -> bool:
        """Whether two models met the same images under the same labels in the same order, so that a paired test may
        be made.
        """
        return all(
            list(getattr(self.images, name)) == list(getattr(other.images, name)) for name in ("digest", "label")
        )

    def met_same_attacks(self, other: "Report", threats: Sequence[ThreatModel]) -> bool:
        """Whether two models met the same attacks under each of these threat models, which both have; if they did not,
        the difference between their robust accuracies is the attacks', too, and no test tells it from the models'.
        """
        return all(self.settings.attacks_as(other.settings, threat) for threat in threats)

    @classmethod
    def load(cls, path: str | PathLike) -> "Report":
        """Read a `report.json` and the `per_image.npz` and `gallery.npz` beside it.

        Raises:
            ValueError: a file is missing, damaged or of another version of the schema.
        """
        path = Path(path)
        path = path / "report.json" if path.is_dir() else path
        try:
            content = read_json(path)
            if content.get("schema") != SCHEMA or content.get("schema_version") != SCHEMA_VERSION:
                found = f"{content.get('schema')!r} version {content.get('schema_version')!r}"
                raise ValueError(f"accepted is {SCHEMA!r} version {SCHEMA_VERSION}, received {found}")
            arrays, pictures = (read_arrays(path.with_name(name)) for name in ("per_image.npz", "gallery.npz"))
            report = cls._from(content, arrays, pictures)
            summary = json.loads(json.dumps(report._summary()))
            for part in ("results", "union"):
                if content[part] != summary[part]:
                    raise ValueError(f"its {part} are not those of the images in per_image.npz")
            return report
        except (OSError, ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
            reason = str(error) if isinstance(error, ValueError) else repr(error)
            raise ValueError(f"{path} cannot be read as a report: {reason}") from error

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {name: getattr(self.images, name) for name in ("index", "label", "digest", "name")}
        for number, result in enumerate(self.results):
            for name in PER_IMAGE:
                arrays[f"{number}/{name}"] = getattr(result, name)
            for name, evaluations in result.evaluations.items():
                arrays[f"{number}/evaluations/{name}"] = evaluations
            if result.sample is not None:
                arrays |= {f"{number}/{name}": array for name, array in result.sample.arrays().items()}
            arrays |= {f"{number}/{name}": values for name in EXTRA if (values := getattr(result, name)) is not None}
        for number, image_set in enumerate(self.image_sets):
            arrays |= {f"sets/{number}/label": image_set.label, f"sets/{number}/digest": image_set.digest}
            for version, answers in image_set.predictions.items():
                arrays[f"sets/{number}/answers/{version}"] = answers
        return arrays

    def _summary(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "settings": self.settings.to_json(),
            "warnings": self.warnings,
            "results": [_describe(result) for result in self.results],
            "union": [
                {"resolution": resolution, **_proportion("union", self.union(resolution))}
                for resolution in self.resolutions
            ],
            "curves": [
                {"norm": norm, "resolution": resolution, **self.curve(norm, resolution).summary()}
                for resolution in self.resolutions
                for norm in filter(self.has_curve, self.norms)
            ],
            "image_sets": [_describe_set(image_set) for image_set in self.image_sets],
            "attack_warnings": list(self.attack_warnings),
            "skipped": list(self.images.skipped),
            "outputs": list(self.images.outputs),
            "gallery": [
                {
                    "norm": picture.threat.norm,
                    "eps": picture.threat.bound,
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
    def _from(
        cls, content: Mapping[str, Any], arrays: Mapping[str, np.ndarray], pictures: Mapping[str, np.ndarray]
    ) -> "Report":
        results = []
        settings = EvaluationSettings.from_json(content["settings"])
        for number, cell in enumerate(content["results"]):
            stages = tuple(cell["n_correct_after"])
            misclassified_at, *answers, norms = (arrays[f"{number}/{name}"] for name in PER_IMAGE)
            threat = ThreatModel(cell["norm"], cell["eps"])
            extra: dict[str, Any] = {name: arrays[key] for name in EXTRA if (key := f"{number}/{name}") in arrays}
            results.append(
                AttackResult(
                    threat,
                    cell["resolution"],
                    stages,
                    misclassified_at,
                    answers[0],
                    answers[1],
                    norms,
                    {name: arrays[f"{number}/evaluations/{name}"] for name in stages[1:]},
                    cell["unconfirmed"],
                    passes=settings.propagations(threat),
                    sample=Sample.from_arrays(arrays, f"{number}/"),
                    **extra,
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
        images = Images.from_arrays({**arrays, "outputs": content["outputs"], "skipped": content["skipped"]})
        sets = {each.name: each for each in settings.image_sets}
        image_sets = []
        for number, entry in enumerate(content.get("image_sets", ())):
            known, place = sets[entry["name"]], f"sets/{number}"
            predictions = {version: arrays[f"{place}/answers/{version}"] for version in known.versions}
            label, digest = (arrays[f"{place}/{name}"] for name in ("label", "digest"))
            image_sets.append(ImageSetResult(known, entry["resolution"], label, digest, predictions))
        return cls(settings, results, images, content["attack_warnings"], gallery, image_sets)


def _describe(result: AttackResult) -> dict[str, Any]:
    return {
        "norm": result.threat.norm,
        "eps": result.threat.bound,
        "resolution": result.resolution,
        "n_examples": result.n_examples,
        "n_correct_after": {
            stage: None if share.is_estimate else int(np.sum(result.correct[stage]))
            for stage, share in result.shares.items()
        },
        **_proportion("clean", result.clean),
        **_proportion("robust", result.robust),
        "unconfirmed": dict(result.unconfirmed),
        "mean_evaluations": {name: float(np.mean(each)) for name, each in result.evaluations.items()},
        "mean_propagations": float(np.mean(result.propagations)),
    }


def _describe_set(image_set: ImageSetResult) -> dict[str, Any]:
    versions = image_set.accuracies.items()
    return {
        "name": image_set.settings.name,
        "resolution": image_set.resolution,
        "n_examples": len(image_set.label),
        "accuracies": {version: _proportion("clean", share) for version, share in versions},
    }


def _proportion(name: str, share: Proportion | Estimate) -> dict[str, Any]:
    if isinstance(share, Estimate):  # under another name than a number that is known
        return {f"{name}_estimate": {"value": share.value, "interval_95": list(share.interval), **asdict(share)}}
    return {f"{name}_accuracy": share.value, f"{name}_interval_95": list(share.interval)}
