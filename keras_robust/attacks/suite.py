"""Suite of attacks on a model: the loop over attacks and the images that are still classified correctly."""

import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust import backend, losses
from keras_robust.attacks import sanity_checks
from keras_robust.attacks.base import Attack
from keras_robust.attacks.batching import Outcomes, SlotRunner, slot_count
from keras_robust.batch_checks import check_outputs
from keras_robust.model_graph import check_logits, check_pixels
from keras_robust.precision import as_float32
from keras_robust.threat import ThreatModel
from keras_robust.types import Tensor

RELATIVE_SLACK = 2e-6  # of a computed L2 or L1 norm
ROUNDING = 2.0**-24  # of x + eps to a float, which is where the ball of Linf ends
BLACK_BOX = (
    "Black box: this model gives no gradients, so that only attacks without them were run ({attacks}). They find less "
    "than gradient attacks: read the robust accuracy as an upper bound, far above what a white-box attack may leave."
)


@dataclass(frozen=True)
class Transfer:
    """A transfer attack (Papernot et al. 2017): adversarial images of a surrogate, shown to the model under attack.

    Attributes:
        attack: on the surrogate.
        surrogate: a differentiable model of the same classes.
    """

    attack: Attack
    surrogate: Any

    # What it costs per image: one look at the model under attack.
    evaluations = n_restarts = 1

    def n_targets(self, num_classes: int) -> int:
        return 1

    def get_config(self) -> dict:
        return self.attack.get_config()


@dataclass(frozen=True)
class Stage:
    """One attack of a suite, on the images that were still classified correctly.

    Attributes:
        name: of the attack.
        misclassified: images that it made the model misclassify, booleans (n,), of all images.
        x_adv: float32, those images as they are misclassified, the others as they were.
        evaluations: gradients (Square: queries) spent on each image, int64 (n,).
        unconfirmed: successes of the compiled model that the uncompiled one did not confirm, and that do not count.
        seconds: that it took.
    """

    name: str
    misclassified: np.ndarray
    x_adv: np.ndarray
    evaluations: np.ndarray
    unconfirmed: int
    seconds: float


class AttackSuite:
    """Named attacks on one model under one threat model, in float32, each compiled once per batch shape.

    Every success is confirmed by the uncompiled model. Random draws are keyed by seed, attack and the image's place in
    the data set, so that what becomes of an image does not depend on the images beside it.

    Args:
        model: a Keras model or any other callable from images to logits.
        threat: the `ThreatModel`.
        attacks: by name, in the order run.
        batch_size: the most images attacked at a time, which bounds the memory.
        expects_random: the attacks are made for models whose output is random.
        fallbacks: losses that AutoAttack uses and that this model may have too few classes for: name -> (classes
            needed, the loss instead).
    """

    def __init__(
        self,
        model: Any,
        threat: ThreatModel,
        attacks: Mapping[str, Attack | Transfer],
        batch_size: int,
        expects_random: bool = False,
        fallbacks: Mapping[str, tuple[int, str]] | None = None,
    ) -> None:
        self.threat, self.attacks, self.batch_size = threat, attacks, batch_size
        check_pixels(model)
        self.model = float32_copy(model) if isinstance(model, keras.Model) else model
        self._expects_random, self._fallbacks = expects_random, fallbacks or {}
        self._runners: dict[str, SlotRunner] = {}
        self._traces: bool | None = None

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Logits of the uncompiled model, float32 (n, classes), in batches of few sizes (see `slot_count`)."""
        parts = []
        size = slot_count(len(x), self.batch_size)
        for start in range(0, len(x), size):
            part = x[start : start + size]
            missing = slot_count(len(part), size) - len(part)
            padded = ops.convert_to_tensor(np.pad(part, ((0, missing), (0, 0), (0, 0), (0, 0)), mode="edge"))
            in_keras = isinstance(self.model, keras.Layer)
            logits = self.model(padded, training=False) if in_keras else self.model(padded)
            check_outputs(logits, padded)
            parts.append(ops.convert_to_numpy(ops.cast(logits, "float32"))[: len(part)])
            check_logits(self.model, parts[-1])
        return np.concatenate(parts)

    def warnings(self, x: np.ndarray, y: np.ndarray) -> Iterator[str]:
        """What speaks against judging this model by these attacks, from a few images: sentences."""
        if is_differentiable(self.model):
            yield from sanity_checks.of_model(self.model, self.logits, x, y, self._expects_random)
            if self._fallbacks:
                yield from sanity_checks.of_classes(self.logits(x[:1]).shape[1], self._fallbacks)
        else:
            yield from sanity_checks.of_outputs(self.logits, x)
            yield BLACK_BOX.format(attacks=" and ".join(self.attacks))

    def stages(
        self,
        x: np.ndarray,
        y: np.ndarray,
        logits: np.ndarray,
        first_index: int = 0,
        done: Mapping[str, np.ndarray] | None = None,
    ) -> Iterator[Stage]:
        """The attacks in turn, each on the images that are still classified correctly.

        Args:
            x: images, float32 (n, height, width, channels).
            y: their classes, int32 (n,).
            logits: of the images, (n, classes).
            first_index: place of the first image in the data set, by which random draws are keyed.
            done: attacks that were run before, and the images that they made the model misclassify: they are passed
                over.
        """
        remaining = correctly_classified(logits, y)
        targets = ops.convert_to_numpy(losses.targets(ops.convert_to_tensor(logits), ops.convert_to_tensor(y)))
        for name in self.attacks:
            if done is not None and name in done:
                remaining = remaining & ~done[name]
                continue
            stage = self._stage(name, x, y, targets, first_index, remaining)
            remaining = remaining & ~stage.misclassified
            yield stage

    def _stage(
        self, name: str, x: np.ndarray, y: np.ndarray, targets: np.ndarray, first_index: int, remaining: np.ndarray
    ) -> Stage:
        started = time.monotonic()
        x_adv, misclassified = x.copy(), np.zeros(len(x), bool)
        evaluations, unconfirmed = np.zeros(len(x), np.int64), 0
        left = np.flatnonzero(remaining)
        for start in range(0, len(left), self.batch_size):
            where = left[start : start + self.batch_size]
            outcomes = self._attack(name, x[where], y[where], targets[where], (first_index + where).astype(np.int32))
            x_adv[where], misclassified[where] = outcomes.x_adv, outcomes.misclassified
            evaluations[where] = outcomes.evaluations
            unconfirmed += outcomes.unconfirmed
        return Stage(name, misclassified, x_adv, evaluations, unconfirmed, time.monotonic() - started)

    def _attack(self, name: str, x: np.ndarray, y: np.ndarray, targets: np.ndarray, index: np.ndarray) -> Outcomes:
        attack = self.attacks[name]
        if isinstance(attack, Transfer):
            return self._transfer(attack, x, y)
        if name not in self._runners:
            stream = 1 + list(self.attacks).index(name)
            trace = self._can_trace(x[:1])
            # Of other layers, an interpreter of a file for one, it is not known whether threads may share them.
            shareable = isinstance(self.model, keras.Model) and is_differentiable(self.model)
            side_by_side = shareable and backend.concurrent_calls() > 1 and self._repeats(x[:1])
            self._runners[name] = SlotRunner(attack, self.model, stream, trace, side_by_side)
        return self._runners[name].run(x, y, targets, index, self.batch_size, self._confirm)

    def _transfer(self, transfer: Transfer, x: np.ndarray, y: np.ndarray) -> Outcomes:
        size = self.batch_size
        missing = -len(x) % min(size, len(x))
        padded = np.pad(x, ((0, missing), (0, 0), (0, 0), (0, 0)), mode="edge")
        labels = np.pad(y, (0, missing), mode="edge")
        parts = [
            transfer.attack(transfer.surrogate, padded[start : start + size], labels[start : start + size])
            for start in range(0, len(padded), size)
        ]
        x_adv = np.concatenate(parts)[: len(x)]
        misclassified = self._confirm(x_adv, x, y)
        x_adv = np.where(misclassified[:, None, None, None], x_adv, x)
        return Outcomes(x_adv, misclassified, np.ones(len(x), np.int64), 0)

    def _confirm(self, x_adv: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether points are misclassified by the uncompiled model and, in float64, in the threat model: (n,)."""
        eps = self.threat.eps
        slack = ROUNDING if self.threat.norm == "Linf" else RELATIVE_SLACK * eps
        inside = (perturbation_norm(self.threat.norm, x_adv, x) <= eps + slack) & (x_adv >= 0).all((1, 2, 3))
        return inside & (x_adv <= 1).all((1, 2, 3)) & ~correctly_classified(self.logits(x_adv), y)

    def _repeats(self, x: np.ndarray) -> bool:
        """Whether the model gives the same logits again: one that draws numbers must do so in the same order."""
        return np.array_equal(self.logits(x), self.logits(x), equal_nan=True)

    def _can_trace(self, x: np.ndarray) -> bool:
        """Whether a callable that is no Keras model can be compiled, and then still gives the same logits."""
        if self._traces is None:
            self._traces = not isinstance(self.model, keras.Layer) and self._same_when_traced(x)
        return self._traces

    def _same_when_traced(self, x: np.ndarray) -> bool:
        def forward(frozen: Any, x: Tensor) -> Tensor:
            return ops.cast(frozen(x), "float32")

        plain = self.logits(x)
        try:
            compiled = backend.compile(forward, self.model, trace=True)
            traced = [ops.convert_to_numpy(compiled(ops.convert_to_tensor(x))) for _ in range(2)]
        except Exception:  # whatever a function of someone else's may raise: it runs as it is
            return False
        return all(np.allclose(plain, each, rtol=1e-3, atol=1e-4) for each in (*traced, self.logits(x)))


_float32_copies: weakref.WeakKeyDictionary[keras.Model, keras.Model] = weakref.WeakKeyDictionary()


def float32_copy(model: keras.Model) -> keras.Model:
    """The model itself where it is in float32, else one and the same copy of it, with the weights it has now."""
    if model not in _float32_copies:
        copy = as_float32(model)
        if copy is model:
            return model
        _float32_copies[model] = copy
    copy = _float32_copies[model]
    copy.set_weights(model.get_weights())
    return copy


def is_differentiable(model: Any) -> bool:
    """Whether attacks may ask for gradients; models say so in an attribute `differentiable`, and all others are."""
    return getattr(model, "differentiable", True)


def correctly_classified(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether the largest logit is the class's, booleans (n,); NaN is not correct."""
    return (logits.argmax(1) == y) & ~np.isnan(logits).any(1)


def predictions(logits: np.ndarray) -> np.ndarray:
    """The class of the largest logit, int32 (n,); -1 where a logit is NaN."""
    return np.where(np.isnan(logits).any(1), -1, logits.argmax(1)).astype(np.int32)


def perturbation_norm(norm: str, x_adv: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Norm of each perturbation, computed in float64, (n,)."""
    orders = {"Linf": np.inf, "L2": 2, "L1": 1}
    flat = (x_adv.astype(np.float64) - x).reshape(len(x), -1)
    return np.linalg.norm(flat, orders[norm], axis=1)
