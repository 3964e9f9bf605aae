"""Suite of attacks on a model: the loop over attacks and the images that are still classified correctly."""

import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust import backend, losses
from keras_robust.attacks import sanity_checks
from keras_robust.attacks.base import Attack
from keras_robust.attacks.batching import Examples, Outcomes, slot_count
from keras_robust.attacks.result import CLEAN, AttackResult, first_misclassified_at
from keras_robust.attacks.sampling import Sample, SamplingPlan
from keras_robust.batch_checks import check_outputs
from keras_robust.model_graph import check_logits, check_pixels
from keras_robust.precision import as_float32
from keras_robust.threat import ThreatModel
from keras_robust.types import Tensor

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

    def propagations(self, num_classes: int) -> int:
        return 1

    def n_targets(self, num_classes: int) -> int:
        return 1

    @property
    def seed(self) -> int:
        return self.attack.seed

    def get_config(self) -> dict:
        return self.attack.get_config()


@dataclass(frozen=True)
class Stage:
    """One attack of a suite, on the images that were still classified correctly.

    Without a bound on the perturbation every attack meets all images, and counts where it finds a nearer point than
    those before it.

    Attributes:
        name: of the attack.
        misclassified: images that it made the model misclassify, booleans (n,), of all images.
        x_adv: float32, those images as they are misclassified, the others as they were.
        evaluations: gradients (Square: queries) spent on each image, int64 (n,).
        unconfirmed: successes of the compiled model that the uncompiled one did not confirm, and that do not count.
        seconds: that it took.
        loss: the highest that a run ended at, float32 (n,), of the images that it could not break; -inf for none.
        sample: of the images that are left, drawn for the attacks to come; None where these meet all of them.
    """

    name: str
    misclassified: np.ndarray
    x_adv: np.ndarray
    evaluations: np.ndarray
    unconfirmed: int
    seconds: float
    loss: np.ndarray
    sample: Sample | None = None


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
        plan: of a sample, where not all attacks are to meet all images that are left.
    """

    def __init__(
        self,
        model: Any,
        threat: ThreatModel,
        attacks: Mapping[str, Attack | Transfer],
        batch_size: int,
        expects_random: bool = False,
        fallbacks: Mapping[str, tuple[int, str]] | None = None,
        plan: SamplingPlan | None = None,
    ) -> None:
        self.threat, self.attacks, self.batch_size, self.plan = threat, attacks, batch_size, plan
        check_pixels(model)
        self.model = float32_copy(model) if isinstance(model, keras.Model) else model
        self._expects_random, self._fallbacks = expects_random, fallbacks or {}
        self._runners: dict[tuple[str, bool], Any] = {}
        self._traces: bool | None = None

    def share(self, name: str) -> float:
        """The part of the images left that meets an attack, about: 1 where no sample is drawn."""
        return 1.0 if self.plan is None or name in self.plan.beginnings else self.plan.share

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
        goal: np.ndarray | None = None,
        distance: np.ndarray | None = None,
        sample: Sample | None = None,
    ) -> Iterator[Stage]:
        """The attacks in turn, each on the images that are still classified correctly.

        Args:
            x: images, float32 (n, height, width, channels).
            y: their classes, int32 (n,).
            logits: of the images, (n, classes).
            first_index: place of the first image in the data set, by which random draws are keyed.
            done: attacks that were run before, and the images that they made the model misclassify: they are passed
                over.
            goal: what the model is to take each image for, int32 (n,); if not given, any class but its own will do.
            distance: norms of the perturbations that the attacks of `done` found, (n,).
            sample: that was drawn after one of `done`.
        """
        remaining = resists(logits, y, goal)
        if goal is None:
            targets = ops.convert_to_numpy(losses.targets(ops.convert_to_tensor(logits), ops.convert_to_tensor(y)))
        else:
            targets = goal[:, None]
        examples = Examples(x, y, targets, (first_index + np.arange(len(x))).astype(np.int32))
        nearest = np.full(len(x), np.inf)
        for name in self.attacks:
            if done is not None and name in done:
                if self.threat.is_bounded:
                    remaining = remaining & ~done[name]
                    if sample is not None and self.plan is not None and name == self.plan.after:
                        remaining = remaining & sample.drawn
                elif distance is not None:
                    nearest[done[name]] = distance[done[name]]
                continue
            stage = self._stage(name, replace(examples, known=nearest), goal, remaining)
            if self.threat.is_bounded:
                remaining = remaining & ~stage.misclassified
                if self.plan is not None and name == self.plan.after:
                    drawn = self.plan.draw(stage.loss, remaining, self.attacks[name].seed, examples.index)
                    stage, remaining = replace(stage, sample=drawn), remaining & drawn.drawn
            else:
                # In the precision in which they are stored, so that a run goes on from the same ones.
                norms = self.threat.geometry.measure(stage.x_adv, x).astype(np.float32)
                nearer = stage.misclassified & (norms < nearest)
                nearest[nearer] = norms[nearer]
                stage = replace(stage, misclassified=nearer)
            yield stage

    def result(self, x: Any, y: Any, goal: Any = None) -> AttackResult:
        """What becomes of images under all the attacks, with warnings, which are also raised as such.

        Args:
            x: tensor (n, height, width, channels) in [0, 1].
            y: tensor of class indices or soft labels.
            goal: as of `stages`, a tensor or None.
        """
        x, y = ops.convert_to_numpy(x), ops.convert_to_numpy(losses.class_of(y))
        goal = None if goal is None else ops.convert_to_numpy(goal)
        logits = self.logits(x)
        reasons = [*self.warnings(x[: self.batch_size], y[: self.batch_size])]
        prediction, n_attacks = predictions(logits), len(self.attacks)
        x_adv, misclassified = x.copy(), []
        evaluations, unconfirmed, sample = {}, {}, None
        for stage in self.stages(x, y, logits, goal=goal):
            x_adv[stage.misclassified] = stage.x_adv[stage.misclassified]
            misclassified.append(stage.misclassified)
            evaluations[stage.name], unconfirmed[stage.name] = stage.evaluations, stage.unconfirmed
            sample = stage.sample or sample
        misclassified_at = first_misclassified_at(resists(logits, y, goal), misclassified)
        adversarial_prediction = prediction.copy()
        changed = (misclassified_at > 0) & (misclassified_at <= n_attacks)
        if changed.any():
            adversarial_prediction[changed] = predictions(self.logits(x_adv[changed]))
        result = AttackResult(
            self.threat,
            int(x.shape[1]),
            (CLEAN, *self.attacks),
            misclassified_at,
            prediction,
            adversarial_prediction,
            self.threat.geometry.measure(x_adv, x),
            evaluations,
            unconfirmed,
            x_adv,
            {name: attack.propagations(logits.shape[1]) for name, attack in self.attacks.items()},
            sample=sample,
        )
        labels = np.bincount(y)
        reasons += sanity_checks.of_result(result.accuracy_after)
        reasons += sanity_checks.of_answers(np.bincount(np.maximum(prediction, 0)), labels)
        if not self.threat.is_bounded:
            reasons += sanity_checks.of_distances(result.distances)
        elif goal is None:
            reasons += sanity_checks.of_chance({str(self.threat): result.robust}, labels)
        for warning in reasons:
            warnings.warn(warning, stacklevel=3)
        return replace(result, warnings=tuple(reasons), aimed=goal is not None)

    def _stage(self, name: str, examples: Examples, goal: np.ndarray | None, remaining: np.ndarray) -> Stage:
        started, n = time.monotonic(), len(examples)
        x_adv, misclassified = examples.x.copy(), np.zeros(n, bool)
        evaluations, unconfirmed = np.zeros(n, np.int64), 0
        loss = np.full(n, -np.inf, np.float32)
        left = np.flatnonzero(remaining)
        for start in range(0, len(left), self.batch_size):
            where = left[start : start + self.batch_size]
            outcomes = self._attack(name, examples.take(where), None if goal is None else goal[where])
            x_adv[where], misclassified[where] = outcomes.x_adv, outcomes.misclassified
            evaluations[where], loss[where] = outcomes.evaluations, outcomes.loss
            unconfirmed += outcomes.unconfirmed
        return Stage(name, misclassified, x_adv, evaluations, unconfirmed, time.monotonic() - started, loss)

    def _attack(self, name: str, examples: Examples, goal: np.ndarray | None) -> Outcomes:
        attack, confirm = self.attacks[name], partial(self._confirm, examples, goal)
        if isinstance(attack, Transfer):
            return self._transfer(attack, examples.x, examples.y, confirm)
        key = name, goal is not None
        if key not in self._runners:
            stream = self._stream(name)
            trace = self._can_trace(examples.x[:1])
            # Of other layers, an interpreter of a file for one, it is not known whether threads may share them.
            shareable = isinstance(self.model, keras.Model) and is_differentiable(self.model)
            side_by_side = shareable and backend.concurrent_calls() > 1 and self._repeats(examples.x[:1])
            self._runners[key] = attack.runner(self.model, stream, trace, side_by_side, goal is not None)
        return self._runners[key].run(examples, self.batch_size, confirm)

    def _stream(self, name: str) -> int:
        """Number of an attack, by which its random draws are keyed: its place, from 1."""
        beginnings = {} if self.plan is None else self.plan.beginnings
        return 1 + [each for each in self.attacks if each not in beginnings].index(beginnings.get(name, name))

    def _transfer(self, transfer: Transfer, x: np.ndarray, y: np.ndarray, confirm: Callable) -> Outcomes:
        size = self.batch_size
        missing = -len(x) % min(size, len(x))
        padded = np.pad(x, ((0, missing), (0, 0), (0, 0), (0, 0)), mode="edge")
        labels = np.pad(y, (0, missing), mode="edge")
        parts = [
            transfer.attack(transfer.surrogate, padded[start : start + size], labels[start : start + size])
            for start in range(0, len(padded), size)
        ]
        x_adv = np.concatenate(parts)[: len(x)]
        misclassified = confirm(x_adv, np.arange(len(x)))
        x_adv = np.where(misclassified[:, None, None, None], x_adv, x)
        loss = np.full(len(x), -np.inf, np.float32)
        return Outcomes(x_adv, misclassified, np.ones(len(x), np.int64), 0, loss)

    def _confirm(self, examples: Examples, goal: np.ndarray | None, points: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Whether points are misclassified by the uncompiled model and, in float64, in the threat model: (n,)."""
        norm, eps = self.threat.geometry, self.threat.eps
        inside = (norm.measure(points, examples.x[rows]) <= eps + norm.slack(eps)) & (points >= 0).all((1, 2, 3))
        holds = resists(self.logits(points), examples.y[rows], None if goal is None else goal[rows])
        return inside & (points <= 1).all((1, 2, 3)) & ~holds

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


def resists(logits: np.ndarray, y: np.ndarray, goal: np.ndarray | None = None) -> np.ndarray:
    """Whether images are classified correctly or, with a goal, not as that: what an attack is to end, booleans (n,)."""
    return correctly_classified(logits, y) if goal is None else ~correctly_classified(logits, goal)


def predictions(logits: np.ndarray) -> np.ndarray:
    """The class of the largest logit, int32 (n,); -1 where a logit is NaN."""
    return np.where(np.isnan(logits).any(1), -1, logits.argmax(1)).astype(np.int32)
