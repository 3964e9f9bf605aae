"""AutoAttack: an ensemble of attacks without a parameter to tune, and what casts doubt on its verdict."""

import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from keras_robust import backend, losses
from keras_robust.attacks import sanity_checks
from keras_robust.attacks.batching import Attempts, Lanes, lane_count
from keras_robust.attacks.versions import FALLBACKS, VERSIONS, ensemble
from keras_robust.batch_checks import check_batch
from keras_robust.checks import check_choice, check_count
from keras_robust.precision import as_float32
from keras_robust.threat import ThreatModel

RELATIVE_SLACK = 2e-6  # of a computed L2 or L1 norm
ROUNDING = 2.0**-24  # of x + eps to a float, which is where the ball of Linf ends

NOT_COVERED = (
    "AutoAttack is a test for deterministic, differentiable classifiers. Defences that adapt at test time, randomise "
    "or purify their input, or hide their gradients need adaptive attacks written for them."
)


@dataclass(frozen=True)
class AutoAttackResult:
    """What AutoAttack did to a set of images.

    Attributes:
        x_adv: float32, numpy, in the shape of the images: misclassified, in the ball and in [0, 1], where an attack
            succeeded, else the image itself.
        correct: name -> booleans (n,): images still classified correctly, at first ("clean") and after each attack.
        broken_by: the attack that broke each image, "clean" where it was misclassified all along, "" where none did.
        size: norm of each perturbation, float64 (n,), 0 where no attack succeeded.
        evaluations: name -> gradients (Square: queries) that the attack took on each image, up to success; int (n,).
        unconfirmed: name -> successes that the uncompiled model in float32 did not confirm, and that do not count.
        warnings: reasons to doubt the robust accuracy.
    """

    x_adv: np.ndarray
    correct: Mapping[str, np.ndarray]
    broken_by: np.ndarray
    size: np.ndarray
    evaluations: Mapping[str, np.ndarray]
    unconfirmed: Mapping[str, int]
    warnings: tuple[str, ...] = ()

    @property
    def accuracy_after(self):
        """Fractions of 1: "clean" and every attack, in the order run."""
        return {name: float(np.mean(correct)) for name, correct in self.correct.items()}

    @property
    def clean_accuracy(self):
        return float(np.mean(self.correct["clean"]))

    @property
    def robust_accuracy(self):
        return float(np.mean(list(self.correct.values())[-1]))


class AutoAttack:
    """The field's standard evaluation of robustness: a fixed sequence of attacks, each on what the others left.

    Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks"; for L1 with the settings of Croce & Hein 2021, "Mind the box". Every success is confirmed by the
    uncompiled model in float32.

    Random draws are keyed by seed, attack and the image's place in the data set, so that what becomes of an image does
    not depend on the images beside it. At one batch size the result is the same to the last bit (PyTorch rounds rows
    of a batch by their position: there but for ties); at another batch size the same images are broken, but for ties.

    Args:
        threat: the `ThreatModel`.
        version: "standard" (APGD on cross-entropy, targeted APGD, targeted FAB, Square), "short" (the first two),
            "plus" (six attacks, five restarts) or "rand" (gradients averaged over 20 samples of a random output).
        batch_size: the most images attacked at a time, which bounds the memory.
        seed: of all random draws, in [0, 2**31).

    Raises:
        ValueError: an argument is not accepted.

    Calling it, `autoattack(model, x, y)`, with images (n, height, width, channels) in [0, 1] and class indices (n,),
    numpy or tensors, gives an `AutoAttackResult`. `model` is a Keras model or any other callable from images to
    logits; the result holds warnings about what looks like a defence that AutoAttack cannot judge.

    Example:
        >>> result = AutoAttack(ThreatModel("Linf", 4 / 255), version="short")(model, x, y)
        >>> result.robust_accuracy, result.accuracy_after
        (0.48, {'clean': 0.72, 'apgd-ce': 0.51, 'apgd-t': 0.48})
    """

    def __init__(self, threat, version="standard", batch_size=250, seed=0):
        if not isinstance(threat, ThreatModel):
            raise ValueError(f"threat must be a ThreatModel, e.g. ThreatModel('Linf', 4 / 255); received {threat!r}.")
        self.threat = threat
        self.version = check_choice("version", version, tuple(VERSIONS))
        self.batch_size = check_count("batch_size", batch_size)
        self.seed = check_count("seed", seed, least=0)
        self._runs = weakref.WeakKeyDictionary()

    def __call__(self, model, x, y):
        x, y = check_batch(model, x, y)
        x, y = ops.convert_to_numpy(x), ops.convert_to_numpy(losses.class_of(y))
        run = self.on(model)
        logits = run.logits(x)
        doubts = [*run.doubts(x[: self.batch_size], y[: self.batch_size])]
        targets = ops.convert_to_numpy(losses.targets(ops.convert_to_tensor(logits), ops.convert_to_tensor(y)))
        correct = {"clean": correctly_classified(logits, y)}
        broken_by = np.where(correct["clean"], "", "clean").astype(object)
        x_adv, evaluations, unconfirmed = x.copy(), {}, {}
        for name in run.attacks(logits.shape[1]):
            remaining = list(correct.values())[-1].copy()
            evaluations[name], unconfirmed[name] = np.zeros(len(x), np.int64), 0
            left = np.flatnonzero(remaining)
            for start in range(0, len(left), self.batch_size):
                where = left[start : start + self.batch_size]
                attempts = run.attack(name, x[where], y[where], targets[where], where)
                evaluations[name][where] = attempts.evaluations
                unconfirmed[name] += attempts.unconfirmed
                fooled = where[attempts.broken]
                x_adv[fooled] = attempts.x_adv[attempts.broken]
                remaining[fooled], broken_by[fooled] = False, name
            correct[name] = remaining
        doubts += sanity_checks.of_result({name: float(np.mean(each)) for name, each in correct.items()})
        for doubt in doubts:
            warnings.warn(doubt, stacklevel=2)
        size = distance(self.threat.norm, x_adv, x)
        return AutoAttackResult(x_adv, correct, broken_by.astype(str), size, evaluations, unconfirmed, tuple(doubts))

    def on(self, model):
        """This evaluation of one model, in float32, with what is compiled for it: a `Run`.

        That of a Keras model is kept and follows its weights, but not changes of its layers: attack a model that is
        built anew instead (`keras.models.clone_model`). Any other callable gets a new one each time, for what it refers
        to may have changed.
        """
        if not isinstance(model, keras.Layer):
            return Run(self, model)
        run = self._runs.get(model)
        if run is None:
            run = self._runs[model] = Run(self, model)
        run.follow(model)
        return run


class Run:
    """AutoAttack's attacks on one model, each compiled once per batch shape."""

    def __init__(self, autoattack, model):
        self._threat, self._version = autoattack.threat, autoattack.version
        self._batch_size, self._seed = autoattack.batch_size, autoattack.seed
        self._lanes: dict[str, Lanes] = {}
        self._trace = None
        # Of a Keras model only a copy may be kept: the run is forgotten when the model is.
        copy = as_float32(model) if isinstance(model, keras.Model) else model
        self._copy = None if copy is model else copy
        kept = copy if copy is not model or not isinstance(model, keras.Layer) else None
        self._model = weakref.ref(model) if kept is None else lambda: kept

    def follow(self, model):
        """Take over the weights that `model` has now."""
        if self._copy is not None:
            self._copy.set_weights(model.get_weights())

    def doubts(self, x, y):
        """What speaks against judging this model by AutoAttack, from a few images: sentences."""
        yield from sanity_checks.of_model(self._model(), self.logits, x, y, expect_random=self._version == "rand")
        used = {attack.loss for attack in ensemble(self._threat, self._version).values()}
        num_classes = self.logits(x[:1]).shape[1]
        yield from sanity_checks.of_classes(num_classes, {loss: FALLBACKS[loss] for loss in FALLBACKS if loss in used})

    def attacks(self, num_classes):
        """The attacks by name, in the order run."""
        return ensemble(self._threat, self._version, self._seed, num_classes)

    def attack(self, name, x, y, targets, index) -> Attempts:
        """Attack images that the model classifies correctly.

        Args:
            name: one of `attacks`.
            x: images, float32 (n, height, width, channels), numpy.
            y: their classes (n,).
            targets: the other classes (n, classes - 1), that of the highest logit first (`losses.targets`).
            index: places of the images in the data set (n,), by which random draws are keyed.

        Returns:
            `Attempts`: x_adv, broken, evaluations, unconfirmed.
        """
        if name not in self._lanes:
            attacks = self.attacks(targets.shape[1] + 1)
            stream = 1 + list(attacks).index(name)
            trace = self._can_trace(x[:1])
            # Of other layers, an interpreter of a file for one, it is not known whether threads may share them.
            shareable = isinstance(self._model(), keras.Model) and getattr(self._model(), "differentiable", True)
            side_by_side = shareable and backend.concurrent_calls() > 1 and self._repeats(x[:1])
            self._lanes[name] = Lanes(attacks[name], self._model(), stream, trace, side_by_side)
        return self._lanes[name].run(x, y, targets, index.astype(np.int32), self._batch_size, self._confirm)

    def logits(self, x):
        """Logits of the uncompiled model, float32 numpy (n, classes), in batches of few sizes (see `lane_count`)."""
        model, parts = self._model(), []
        size = lane_count(len(x), self._batch_size)
        for start in range(0, len(x), size):
            part = x[start : start + size]
            missing = lane_count(len(part), size) - len(part)
            padded = ops.convert_to_tensor(np.pad(part, ((0, missing), (0, 0), (0, 0), (0, 0)), mode="edge"))
            logits = model(padded, training=False) if isinstance(model, keras.Layer) else model(padded)
            parts.append(ops.convert_to_numpy(ops.cast(logits, "float32"))[: len(part)])
        return np.concatenate(parts)

    def _confirm(self, x_adv, x, y):
        """Whether points are misclassified by the uncompiled model and, in float64, in the threat model: (n,)."""
        eps = self._threat.eps
        slack = ROUNDING if self._threat.norm == "Linf" else RELATIVE_SLACK * eps
        inside = (distance(self._threat.norm, x_adv, x) <= eps + slack) & (x_adv >= 0).all((1, 2, 3))
        return inside & (x_adv <= 1).all((1, 2, 3)) & ~correctly_classified(self.logits(x_adv), y)

    def _repeats(self, x):
        """Whether the model gives the same logits again: one that draws numbers must do so in the same order."""
        return np.array_equal(self.logits(x), self.logits(x), equal_nan=True)

    def _can_trace(self, x):
        """Whether a callable that is no Keras model can be compiled, and then still gives the same logits."""
        if self._trace is None:
            model = self._model()
            self._trace = False
            if not isinstance(model, keras.Layer):
                plain = self.logits(x)
                try:
                    compiled = backend.compile(lambda frozen, x: ops.cast(frozen(x), "float32"), model, trace=True)
                    traced = [ops.convert_to_numpy(compiled(ops.convert_to_tensor(x))) for _ in range(2)]
                except Exception:  # whatever a function of someone else's may raise: it runs as it is
                    return False
                alike = [np.allclose(plain, each, rtol=1e-3, atol=1e-4) for each in (*traced, self.logits(x))]
                self._trace = all(alike)
        return self._trace


def correctly_classified(logits, y):
    """Whether the largest logit is the class's, numpy (n,); NaN is not correct."""
    return (logits.argmax(1) == y) & ~np.isnan(logits).any(1)


def distance(norm, x_adv, x):
    """Norm of each perturbation, computed in float64, numpy (n,)."""
    orders = {"Linf": np.inf, "L2": 2, "L1": 1}
    flat = (x_adv.astype(np.float64) - x).reshape(len(x), -1)
    return np.linalg.norm(flat, orders[norm], axis=1)
