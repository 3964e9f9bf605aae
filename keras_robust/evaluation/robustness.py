"""How robust is a model: accuracy under attack, by threat model and resolution, with confidence intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import keras
import numpy as np
from keras import ops

from keras_robust import losses
from keras_robust.attacks import Attack
from keras_robust.checks import check_count
from keras_robust.data import Source
from keras_robust.precision import as_float32
from keras_robust.threat import ThreatModel


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a proportion by the score method (Wilson 1927), which also holds near 0 and 1.

    Example:
        >>> wilson_interval(0, 100)
        (0.0, 0.036...)
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes must lie in [0, n] and n be at least 1; received {successes} of {n}.")
    z = NormalDist().inv_cdf(0.5 + 0.5 * confidence)
    share, weight = successes / n, z * z / n
    centre = share + weight / 2
    spread = z * math.sqrt(share * (1 - share) / n + weight / n / 4)
    # Rounding can leave the ends a little outside [0, 1] at 0 and at n successes.
    return max(0.0, (centre - spread) / (1 + weight)), min(1.0, (centre + spread) / (1 + weight))


@dataclass(frozen=True)
class Result:
    """One model under one threat model at one resolution.

    Attributes:
        threat: the `ThreatModel`.
        resolution: side of the images, in pixels.
        correct: images classified correctly at first and after each attack, in the order run: booleans (n_examples,)
            under the names "clean", "apgd-ce", ... An image that was broken once stays broken.
    """

    threat: ThreatModel
    resolution: int
    correct: Mapping[str, np.ndarray]

    @property
    def n_examples(self):
        return len(self.correct["clean"])

    @property
    def accuracy_after(self):
        """Fractions of 1: "clean" and every attack, in the order run."""
        return {stage: float(np.mean(correct)) for stage, correct in self.correct.items()}

    @property
    def clean_accuracy(self):
        return self.accuracy_after["clean"]

    @property
    def robust_accuracy(self):
        return list(self.accuracy_after.values())[-1]

    @property
    def clean_interval(self):
        """95 % Wilson interval of the clean accuracy."""
        return wilson_interval(int(np.sum(self.correct["clean"])), self.n_examples)

    @property
    def robust_interval(self):
        """95 % Wilson interval of the robust accuracy."""
        return wilson_interval(int(np.sum(list(self.correct.values())[-1])), self.n_examples)


@dataclass(frozen=True)
class Report:
    """Results of one model, and the settings that give them again.

    `report[threat, resolution]` is the `Result` of that cell.
    """

    settings: Mapping
    results: Sequence[Result]

    def __getitem__(self, key):
        return {(result.threat, result.resolution): result for result in self.results}[key]


def evaluate(
    model: keras.Model,
    dataset: Source,
    threats: Sequence[ThreatModel],
    resolutions: Sequence[int],
    attack: Sequence[Attack],
    n_examples: int | None = None,
    seed: int = 0,
    batch_size: int = 100,
    crop_ratio: float = 0.875,
    verbose: bool = True,
) -> Report:
    """Clean and robust accuracy of a model under every threat model at every resolution.

    The images are preprocessed for each resolution from their raw size (`kr.data.resize_and_crop`). The attacks run in
    turn, each on the images that are still classified correctly, so that the robust accuracy is the one against the
    best of them image by image. The success that counts is that of the model on the attack's result. All of it
    happens in float32 and inference mode, whatever precision the model was trained in, and in batches of one shape,
    so that an attack is compiled once per resolution.

    Args:
        model: from float images (batch, height, width, channels) in [0, 1] to logits (batch, classes).
        dataset: a source of raw images, e.g. `kr.data.photo_crops("val")`.
        threats: the threat models.
        resolutions: sides in pixels.
        attack: the attacks; each runs under every one of `threats` instead of its own.
        n_examples: number of images, drawn from the dataset without replacement; all of them if not given.
        seed: of that draw.
        batch_size: images attacked at a time; the last batch is padded.
        crop_ratio: side of the centre crop divided by the image's shorter side; the published evaluation's 0.875.
        verbose: show a progress bar with the accuracy so far.

    Raises:
        ValueError: an argument is not as described, or the dataset has labels that the model has no logits for.

    Example:
        >>> attack = [kr.attacks.APGD(threat, n_iter=50, loss=loss, returns="misclassified") for loss in ("ce", "dlr")]
        >>> report = kr.evaluation.evaluate(model, source, [threat], [32], attack, n_examples=500)
        >>> report[threat, 32].robust_accuracy, report[threat, 32].robust_interval
    """
    for name, values in (("threats", threats), ("resolutions", resolutions), ("attack", attack)):
        if not isinstance(values, Sequence) or not values:
            raise ValueError(f"{name} must be a sequence of at least one; received {values!r}.")
    n_examples = len(dataset) if n_examples is None else check_count("n_examples", n_examples)
    if n_examples > len(dataset):
        raise ValueError(f"n_examples must be at most the dataset's {len(dataset)} images; received {n_examples}.")
    batch_size = min(check_count("batch_size", batch_size), n_examples)
    sample = dataset.sample(n_examples, seed)
    model = as_float32(model)
    # One attack object for all resolutions: it keeps what it compiled.
    attackers = {threat: [each.with_threat(threat) for each in attack] for threat in threats}
    bar = keras.utils.Progbar(
        n_examples * len(resolutions) * len(threats) * len(attack), verbose=int(verbose), unit_name="image"
    )
    results = []
    for resolution in resolutions:
        batches = _Batches(*sample.arrays(resolution, crop_ratio), batch_size)
        clean = batches.still_correct(model, np.ones(n_examples, bool))
        for threat in threats:
            correct = {"clean": clean}
            for number, attacker in enumerate(attackers[threat], start=1):
                remaining = list(correct.values())[-1]
                bar.add(n_examples - int(remaining.sum()))
                correct[f"{number} {_name(attacker)}"] = batches.still_correct(model, remaining, attacker, bar)
            results.append(Result(threat, resolution, correct))
    settings = {
        "n_examples": n_examples,
        "seed": seed,
        "batch_size": batch_size,
        "crop_ratio": crop_ratio,
        "attack": [{"name": _name(attacker), **attacker.get_config()} for attacker in attack],
        "backend": keras.backend.backend(),
        "keras": keras.__version__,
    }
    return Report(settings, results)


def _name(attack):
    loss = attack.loss if isinstance(attack.loss, str) else attack.loss.__name__
    return f"{type(attack).__name__}-{loss}".lower()


@dataclass(frozen=True)
class _Batches:
    """Images uint8 (n, height, width, 3) and labels (n,), of which any subset is run in batches of one size."""

    images: np.ndarray
    labels: np.ndarray
    size: int

    def still_correct(self, model, which, attack=None, bar=None):
        """Which of the images `which`, booleans (n,), the model classifies correctly after the attack, if any."""
        correct = np.zeros_like(which)
        indices = np.flatnonzero(which)
        for start in range(0, len(indices), self.size):
            real = indices[start : start + self.size]
            padded = np.pad(real, (0, self.size - len(real)), mode="edge")
            x, y = self.images[padded].astype(np.float32) / 255, self.labels[padded]
            if attack is not None:
                x = attack(model, x, y)
            logits = model(ops.convert_to_tensor(x), training=False)
            hits = losses.correct(logits, ops.convert_to_tensor(y))
            correct[real] = ops.convert_to_numpy(hits)[: len(real)]
            if bar is not None:
                bar.add(len(real))
        return correct
