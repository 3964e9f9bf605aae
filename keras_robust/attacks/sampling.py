"""Sampling of images: costly attacks meet some of those that cheap ones left, drawn with known probabilities."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from keras import ops

from keras_robust import random
from keras_robust.statistics import Estimate

STREAM = 0  # of the draws: those of a suite's attacks are numbered from 1


@dataclass(frozen=True)
class Sample:
    """Which of a suite's images met all of its attacks.

    Attributes:
        after: name of the last attack that all images met.
        probability: with which each image was to be drawn, float32 (n,); 1 for those that needed no draw.
        drawn: images of which it is known whether they are robust, booleans (n,): drawn, or misclassified before.
    """

    after: str
    probability: np.ndarray
    drawn: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it as arrays by name, as they are stored."""
        return {"sampled_after": np.array(self.after), "probability": self.probability, "drawn": self.drawn}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], prefix: str = "") -> "Sample | None":
        """The sample that `arrays` stored under names that begin with `prefix`; None where no sample was.

        Raises:
            KeyError: a part of it is missing.
        """
        if f"{prefix}sampled_after" not in arrays:
            return None
        after, probability, drawn = (arrays[prefix + name] for name in ("sampled_after", "probability", "drawn"))
        return cls(str(after), probability, drawn)

    def estimate(self, unbroken: np.ndarray) -> Estimate:
        """The share of robust images, from those that no attack that they met broke, booleans (n,)."""
        in_doubt = self.probability < 1
        return Estimate(
            n=len(unbroken),
            surely=int(np.sum(unbroken & ~in_doubt)),
            in_doubt=int(in_doubt.sum()),
            drawn=int(np.sum(in_doubt & self.drawn)),
            lost=int(np.sum(in_doubt & self.drawn & ~unbroken)),
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Sample"]) -> "Sample":
        """The sample of the images of all parts."""
        columns = ([part.probability for part in parts], [part.drawn for part in parts])
        return cls(parts[0].after, *map(np.concatenate, columns))

    @classmethod
    def of_all(cls, samples: Sequence["Sample"], unbroken: Sequence[np.ndarray]) -> "Sample":
        """The sample of images of which it is known whether they are robust to several threat models at once.

        Args:
            samples: one of each threat model. An image has one random number for all of them, so that it is in the
                smallest of its samples, or in none.
            unbroken: of each threat model, the images that no attack that they met broke.
        """
        surely_broken = np.any([(s.probability == 1) & ~kept for s, kept in zip(samples, unbroken)], axis=0)
        probability = np.min([sample.probability for sample in samples], axis=0)
        drawn = np.all([sample.drawn for sample in samples], axis=0)
        probability = np.where(surely_broken, 1, probability).astype(np.float32)
        return cls(samples[0].after, probability, drawn | surely_broken)


@dataclass(frozen=True)
class SamplingPlan:
    """Plan of a suite some of whose attacks meet a sample of the images.

    Of the images that are left after the cheap attacks those nearest to the boundary are drawn for certain: there most
    of what the costly attacks will find is found. Each other one is drawn with the same probability, so that what they
    break elsewhere, as on a model that hides its gradients, is neither overlooked nor guessed at.

    Attributes:
        beginnings: names of the cheap attacks -> of the costly one whose first runs each of them makes. It draws the
            same random numbers, so that what it breaks the other would break.
        nearest: share of the images left, of each batch, that are drawn for certain.
        probability: with which each of the others is drawn.
    """

    beginnings: Mapping[str, str]
    nearest: float
    probability: float

    @property
    def after(self) -> str:
        """The last attack that all images meet; by its loss they are ordered."""
        return list(self.beginnings)[-1]

    @property
    def share(self) -> float:
        """The part of the images left that is drawn, about."""
        return self.nearest + (1 - self.nearest) * self.probability

    def draw(self, loss: np.ndarray, remaining: np.ndarray, seed: int, index: np.ndarray) -> Sample:
        """Draw a sample.

        Args:
            loss: the highest that the last cheap attack came to on each image, float32 (n,).
            remaining: images that they left, booleans (n,).
            seed: of the draws.
            index: places of the images in the data set, int32 (n,): each has a random number of its own.
        """
        left = np.flatnonzero(remaining)
        # Where an attack could not even begin its loss is not finite: such images are met for certain.
        order = np.argsort(-np.where(np.isfinite(loss[left]), loss[left], np.inf), kind="stable")
        probability = np.ones(len(loss), np.float32)
        probability[left[order[math.ceil(self.nearest * len(left)) :]]] = self.probability
        keys = random.example_keys(seed, STREAM, ops.convert_to_tensor(index))
        numbers = ops.convert_to_numpy(random.uniform(keys, ops.zeros((len(loss), 1))))[:, 0]
        return Sample(self.after, probability, (numbers < probability) | (probability == 1))
