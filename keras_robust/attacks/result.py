"""Result of a suite of attacks: what became of each image, and the accuracies that follow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from keras_robust.attacks.sampling import Sample
from keras_robust.norms import NORMS
from keras_robust.statistics import Estimate, Proportion
from keras_robust.threat import ThreatModel

CLEAN = "clean"  # the stage before the first attack
LEFT_OUT = "left out"  # instead of a stage, where a sample left an image out


def first_misclassified_at(correct: np.ndarray, misclassified: Sequence[np.ndarray]) -> np.ndarray:
    """Place of the stage that first misclassified each image, as in `AttackResult`, int16 (n,).

    Later attacks that find a nearer point, as they may without a bound on the perturbation, change the distance alone:
    the accuracy after each attack would else rise again.

    Args:
        correct: images classified correctly without an attack, booleans (n,).
        misclassified: images that each attack, in the order run, made the model misclassify, booleans (n,).
    """
    places = np.full(len(correct), 1 + len(misclassified), np.int16)
    for place in range(len(misclassified), 0, -1):
        places[misclassified[place - 1]] = place
    places[~correct] = 0
    return places


@dataclass(frozen=True)
class Curve:
    """Robust accuracy at every radius.

    Attributes:
        norm: of the radii.
        distances: norm of the smallest perturbation found for each image, float (n,): 0 where none is needed, inf
            where none was found.
        limit: largest radius that anything was looked for at.
    """

    norm: str
    distances: np.ndarray
    limit: float = float("inf")

    def at(self, eps: float) -> Proportion:
        """The share of images that stay classified correctly within a radius, with its 95 % Wilson interval.

        Raises:
            ValueError: a radius beyond the limit, at which nobody has looked.
        """
        if not 0 <= eps <= self.limit + NORMS[self.norm].slack(self.limit):
            raise ValueError(f"eps must be a number from 0 to {self.limit:g}, the radius attacked; received {eps!r}.")
        return Proportion.of(self.distances > eps + NORMS[self.norm].slack(eps))

    @property
    def end(self) -> float:
        """The largest finite distance, from which on the curve is level; 0 without one."""
        return float(self.distances[np.isfinite(self.distances)].max(initial=0.0))

    def radii(self, count: int) -> np.ndarray:
        """Radii from 0 to the end, evenly spaced, (count,)."""
        return np.linspace(0.0, self.end, count)

    def levels(self, count: int) -> np.ndarray:
        """At most `count` radii, 0 and the end among them, between which it falls by about equal shares."""
        finite = self.distances[np.isfinite(self.distances)]
        return np.unique(np.quantile([0.0, *finite], np.linspace(0.0, 1.0, count), method="higher"))

    def summary(self) -> dict[str, list]:
        """The curve at 101 radii, as JSON: radii, accuracies and 95 % intervals."""
        radii = self.radii(101)
        shares = [self.at(eps) for eps in radii]
        return {
            "radii": radii.tolist(),
            "robust_accuracy": [share.value for share in shares],
            "interval_95": [list(share.interval) for share in shares],
        }


@dataclass(frozen=True, repr=False)
class AttackResult:
    """One model under one threat model at one resolution, image by image.

    Attributes:
        threat: the `ThreatModel`.
        resolution: height of the images, in pixels.
        stages: "clean" and the attacks, in the order run.
        misclassified_at: place in `stages` of what each image was first misclassified under, int16 (n,): 0 where it was
            misclassified without an attack, len(stages) where no attack succeeded.
        prediction, adversarial_prediction: the model's answer to each image, and to what the attacks made of it, (n,);
            the latter -1 where a sample left the image out.
        perturbation_norm: norm of each successful perturbation, float (n,), 0 where there is none, NaN where a sample
            left the image out.
        evaluations: attack -> gradients (Square: queries) spent on each image, up to success; int (n,). Without a bound
            on the perturbation there is no such end.
        unconfirmed: attack -> successes that the uncompiled model in float32 did not confirm, and that do not count.
        x_adv: float32, in the shape of the images: misclassified, in the ball and in [0, 1], where an attack succeeded,
            else the image itself. None in a stored report, which keeps no images.
        passes: attack -> forward and backward passes, each counted as one, of one of its evaluations.
        warnings: reasons to doubt the robust accuracy, a sentence each.
        rounded_prediction: the model's answer to the adversarial images rounded to 8 bits, (n,); None unless asked for.
        certainty, adversarial_certainty: largest probability and Brier score of each answer, to the images and to what
            the attacks made of them, (n, 2); None unless asked for.
        aimed: the attacks aimed at a class of the user's choice: "correct", "clean" and "robust" then mean that the
            image is not taken for it.
        sample: which images met all the attacks, where the last of them met a sample only; then the robust accuracy is
            an estimate, and nothing here passes for the number itself: see `robust`. None where all images did.
    """

    threat: ThreatModel
    resolution: int
    stages: tuple[str, ...]
    misclassified_at: np.ndarray
    prediction: np.ndarray
    adversarial_prediction: np.ndarray
    perturbation_norm: np.ndarray
    evaluations: Mapping[str, np.ndarray]
    unconfirmed: Mapping[str, int]
    x_adv: np.ndarray | None = None
    passes: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    aimed: bool = False
    rounded_prediction: np.ndarray | None = None
    certainty: np.ndarray | None = None
    adversarial_certainty: np.ndarray | None = None
    sample: Sample | None = None

    def __post_init__(self) -> None:
        # Of an image that was left out nobody knows what all attacks make of it: not its clean answer, nor nothing.
        if self.sample is not None:
            for name, unknown in (("adversarial_prediction", -1), ("perturbation_norm", np.nan)):
                object.__setattr__(self, name, np.where(self.sample.drawn, getattr(self, name), unknown))

    @property
    def n_examples(self) -> int:
        return len(self.misclassified_at)

    @property
    def correct(self) -> dict[str, np.ndarray]:
        """Images still classified correctly at first ("clean") and after each attack that all images met: stage ->
        booleans (n,).
        """
        return {stage: self._unbroken_after(stage) for stage in self._met_by_all}

    @property
    def _met_by_all(self) -> tuple[str, ...]:
        return self.stages if self.sample is None else self.stages[: 1 + self.stages.index(self.sample.after)]

    def _unbroken_after(self, stage: str) -> np.ndarray:
        return self.misclassified_at > self.stages.index(stage)

    @property
    def is_robust(self) -> np.ndarray:
        """Images that are classified correctly and that no attack changed the answer to, booleans (n,).

        Raises:
            ValueError: some of them did not meet all the attacks.
        """
        self._check_known("is_robust")
        return self.is_unbroken

    @property
    def is_unbroken(self) -> np.ndarray:
        """The same as far as the attacks go that each image met, booleans (n,)."""
        return self.misclassified_at == len(self.stages)

    def _check_known(self, name: str) -> None:
        if self.sample is not None:
            left_out = self.n_examples - int(self.sample.drawn.sum())
            raise ValueError(
                f"{name} is not known: {left_out} of {self.n_examples} images did not meet all attacks. `robust` is an "
                "estimate, with its interval; `clean`, `is_unbroken` and `sample` are what was seen."
            )

    @property
    def misclassified_by(self) -> np.ndarray:
        """The stage at which each image was misclassified, strings (n,): "clean", an attack, or "" for none; "left out"
        of images that would have met more attacks, had a sample drawn them.
        """
        found = np.array([*self.stages, "", LEFT_OUT])[self.misclassified_at]
        return found if self.sample is None else np.where(self.sample.drawn, found, LEFT_OUT)

    @property
    def distances(self) -> np.ndarray:
        """Norm of the smallest perturbation found for each image, float64 (n,): 0 where none is needed, else inf where
        none was found, and NaN where a sample left the image out."""
        norm = np.asarray(self.perturbation_norm, np.float64)
        return np.where(self.is_unbroken & ~np.isnan(norm), np.inf, norm)

    @property
    def propagations(self) -> np.ndarray:
        """Forward and backward passes, each counted as one, that the attacks spent on each image, int64 (n,)."""
        spent = [self.passes[name] * np.asarray(each, np.int64) for name, each in self.evaluations.items()]
        return np.sum(spent, axis=0)

    def robust_at(self, eps: float) -> Proportion:
        """The robust accuracy at a radius up to that of the threat model, by the perturbations that were found.

        An attack that looks for the nearest point answers for every radius at once; one that stops at its first success
        finds larger perturbations than it must.
        """
        return self.curve.at(eps)

    @property
    def curve(self) -> Curve:
        """The robust accuracy at every radius up to that of the threat model, by the same perturbations."""
        self._check_known("curve")
        return Curve(self.threat.norm, self.distances, self.threat.eps)

    @property
    def accuracy_after(self) -> dict[str, float]:
        """Fractions of 1: "clean" and every attack, in the order run; estimates of them after those on a sample."""
        return {stage: share.value for stage, share in self.shares.items()}

    @property
    def shares(self) -> dict[str, Proportion | Estimate]:
        """The same with their intervals: what is estimated is an `Estimate`."""
        found: dict[str, Proportion | Estimate] = {stage: Proportion.of(each) for stage, each in self.correct.items()}
        if self.sample is not None:
            sampled = self.stages[len(found) :]
            found |= {stage: self.sample.estimate(self._unbroken_after(stage)) for stage in sampled}
        return found

    @property
    def clean(self) -> Proportion:
        """The clean accuracy with its 95 % Wilson interval."""
        return Proportion.of(self.misclassified_at > 0)

    @property
    def robust(self) -> Proportion | Estimate:
        """The robust accuracy with its 95 % interval: Wilson's, or that of an estimate where a sample was drawn."""
        return Proportion.of(self.is_unbroken) if self.sample is None else self.sample.estimate(self.is_unbroken)

    @property
    def clean_accuracy(self) -> float:
        return self.clean.value

    @property
    def robust_accuracy(self) -> float:
        """The value of `robust`.

        Raises:
            ValueError: it is an estimate.
        """
        self._check_known("robust_accuracy")
        return self.robust.value

    @property
    def _headline(self) -> str:
        if self.aimed:
            return f"not taken for the target {self.robust}, {self.clean} without an attack"
        what = "robust" if self.sample is None else "estimated to be robust"
        return f"{what} {self.robust}, clean {self.clean}"

    def __repr__(self) -> str:
        after = ", ".join(f"{stage} {share.percent.removesuffix(' %')}" for stage, share in self.shares.items())
        what = "not taken for the target" if self.aimed else "accuracy"
        lines = [
            f"{self._headline} under {self.threat}: {self.n_examples} images of {self.resolution} px",
            f"{what} after each attack, in %: {after}",
            *(f"warning: {warning}" for warning in self.warnings),
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = (f"<tr><td>{escape(stage)}</td><td>{share.percent}</td></tr>" for stage, share in self.shares.items())
        cells = "".join(rows)
        warnings = "".join(f"<p><b>Warning.</b> {escape(warning)}</p>" for warning in self.warnings)
        return (
            f"<p>{self._headline.capitalize()} under {escape(str(self.threat))}: {self.n_examples} images "
            f"of {self.resolution} px</p><table><tr><th>after</th><th>accuracy</th></tr>{cells}</table>{warnings}"
        )
