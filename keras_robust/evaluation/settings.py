"""Settings of an evaluation: all that decides its figures, as records that go into reports and resumed runs."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from keras_robust.threat import ThreatModel

PROPAGATIONS = "propagations_per_evaluation"  # in the settings of an attack
OWN = "own"  # what `attack` is called where the user gave a sequence of attacks


@dataclass(frozen=True)
class ModelSettings:
    """The model of an evaluation.

    Attributes:
        name: for people.
        sha256: hash of what it computes.
        differentiable: whether it gives gradients.
        parameters: their number, None where it is not known.
        multiply_adds: resolution -> multiply-adds of a forward pass on one image, None where they cannot be counted.
    """

    name: str
    sha256: str
    differentiable: bool
    parameters: int | None
    multiply_adds: Mapping[int, int | None]


@dataclass(frozen=True)
class ImageSettings:
    """The images of an evaluation, and their preprocessing.

    Attributes:
        n_examples: their number.
        sha256: hash of all images, their order and their labels.
        list: name of the file that lists them, None where they were drawn.
        imagenet: whether they look like ImageNet-1k.
        matched_by: how their classes were matched to the model's outputs: by "name", or by "order" or "number".
        crop_pct: resolution over the shorter side that the images are resized to.
        interpolation: "bicubic" or "bilinear"; "none" for a crop without a resize.
        note: what the data set says of how its split came about, "" if nothing.
    """

    n_examples: int
    sha256: str
    list: str | None
    imagenet: bool
    matched_by: str
    crop_pct: float
    interpolation: str
    note: str = ""


@dataclass(frozen=True)
class ThreatSettings:
    """A threat model of an evaluation, and the settings of its attacks by name, in the order run.

    `eps` None is no bound. `sampling` is what an `attacks.sampling.SamplingPlan` holds, None where all attacks meet all
    images that are left.
    """

    norm: str
    eps: float | None
    attacks: Mapping[str, Mapping[str, Any]]
    sampling: Mapping[str, Any] | None = None

    @property
    def threat(self) -> ThreatModel:
        return ThreatModel(self.norm, self.eps)


@dataclass(frozen=True)
class ImageSetSettings:
    """A set of images that the model classifies without an attack.

    Attributes:
        name: of it.
        versions: of each image, such as "fog/3".
        n_examples: number of images.
        sha256: hash of all images, their order and their labels.
        outputs: how many of the model's outputs may be the answer, None for all.
        note: what a reader must know of the images, "" if nothing.
        outputs_sha256: hash of the outputs that may be the answer, None for all.
        matched_by: how their classes were matched to the model's outputs: by "name", or by "order" or "number".
        skipped: number of images that could not be read.
        files_sha256: hash of the files of corrupted images, None of others.
    """

    name: str
    versions: tuple[str, ...]
    n_examples: int
    sha256: str
    outputs: int | None
    note: str
    outputs_sha256: str | None = None
    matched_by: str = "name"
    skipped: int = 0
    files_sha256: str | None = None


@dataclass(frozen=True)
class EvaluationSettings:
    """All that decides the figures of an evaluation.

    Attributes:
        keras_robust: version of this package, None where it is not installed.
        model, images: see there.
        resolutions: in pixels.
        threats: threat models with their attacks.
        attack: a version of AutoAttack, or "own".
        surrogate_sha256: hash of what a surrogate computes, None without one.
        seed: of the choice of images and of the attacks.
        batch_size: images attacked at a time.
        backend: of Keras.
        versions: of the packages that can change a figure.
        image_sets: other images that the model classifies without an attack.
        calibration: whether the probabilities of the answers are kept.
        eight_bit: whether the answers to adversarial images rounded to 8 bits are kept.
    """

    keras_robust: str | None
    model: ModelSettings
    images: ImageSettings
    resolutions: tuple[int, ...]
    threats: tuple[ThreatSettings, ...]
    attack: str
    surrogate_sha256: str | None
    seed: int
    batch_size: int
    backend: str
    versions: Mapping[str, str]
    image_sets: tuple[ImageSetSettings, ...] = ()
    calibration: bool = False
    eight_bit: bool = False

    def propagations(self, threat: ThreatModel) -> dict[str, int]:
        """Forward and backward passes of one evaluation of each attack under a threat model.

        Raises:
            ValueError: the evaluation does not have this threat model.
        """
        return {name: attack[PROPAGATIONS] for name, attack in self._attacks(threat).items()}

    def attacks_as(self, other: "EvaluationSettings", threat: ThreatModel) -> bool:
        """Whether two evaluations attack alike under a threat model, from whatever seed.

        Raises:
            ValueError: one of them does not have this threat model.
        """
        ours, theirs = (
            (
                each.model.differentiable,
                each.surrogate_sha256,
                json.loads(json.dumps(each._attacks(threat)), object_hook=_without_seed),
            )
            for each in (self, other)
        )
        return ours == theirs

    def _attacks(self, threat: ThreatModel) -> Mapping[str, Mapping[str, Any]]:
        attacks = next((each.attacks for each in self.threats if each.threat == threat), None)
        if attacks is None:
            raise ValueError(f"threats must hold {threat}; the evaluation has {len(self.threats)} others.")
        return attacks

    def to_json(self) -> dict[str, Any]:
        """The settings as what `json` writes."""
        found = asdict(self)
        costs = self.model.multiply_adds
        found["model"]["multiply_adds"] = {str(resolution): cost for resolution, cost in costs.items()}
        found["resolutions"], found["threats"] = list(self.resolutions), list(found["threats"])
        found["image_sets"] = [{**each, "versions": list(each["versions"])} for each in found["image_sets"]]
        return found

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "EvaluationSettings":
        """The settings that `to_json` made.

        Raises:
            TypeError, KeyError, AttributeError, ValueError: the content is another one.
        """
        model = dict(content["model"])
        model["multiply_adds"] = {int(resolution): cost for resolution, cost in model["multiply_adds"].items()}
        return cls(
            **{
                **content,
                "model": ModelSettings(**model),
                "images": ImageSettings(**content["images"]),
                "resolutions": tuple(content["resolutions"]),
                "threats": tuple(ThreatSettings(**threat) for threat in content["threats"]),
                "image_sets": tuple(
                    ImageSetSettings(**{**each, "versions": tuple(each["versions"])})
                    for each in content.get("image_sets", ())
                ),
            }
        )


def _without_seed(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "seed"}
