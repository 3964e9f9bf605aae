"""AutoAttack: an ensemble of attacks without a parameter to tune, and what casts doubt on its verdict."""

import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from keras_robust import losses
from keras_robust.attacks import sanity
from keras_robust.attacks.apgd import APGD
from keras_robust.attacks.fab import FAB
from keras_robust.attacks.lanes import Lanes, lane_count
from keras_robust.attacks.square import Square
from keras_robust.checks import check_batch, check_choice, check_count
from keras_robust.precision import as_float32
from keras_robust.threat import ThreatModel

_APGD = {"n_iter": 100, "random_start": True, "returns": "misclassified"}
# Name -> attack and its settings (Croce & Hein 2020, section 5; Croce & Hein 2021, section 5, for L1).
ATTACKS: dict[str, tuple[type, dict]] = {
    "apgd-ce": (APGD, {**_APGD, "loss": "ce"}),
    "apgd-dlr": (APGD, {**_APGD, "loss": "dlr"}),
    "apgd-t": (APGD, {**_APGD, "loss": "targeted-dlr", "n_target_classes": 9}),
    "fab": (FAB, {"n_iter": 100}),
    "fab-t": (FAB, {"n_iter": 100, "targeted": True, "n_target_classes": 9}),
    "square": (Square, {"n_queries": 5000, "p_init": 0.8}),
}
# What L1 changes, in every version.
L1 = {
    "apgd-ce": {"schedule": "shrinking", "n_restarts": 5},
    "apgd-dlr": {"schedule": "shrinking"},
    "apgd-t": {"schedule": "shrinking", "n_target_classes": 5},
}
# Version -> the attacks in the order run, and what it changes of their settings.
VERSIONS: dict[str, dict[str, dict]] = {
    "standard": {"apgd-ce": {}, "apgd-t": {}, "fab-t": {}, "square": {}},
    "short": {"apgd-ce": {}, "apgd-t": {}},
    "plus": {
        "apgd-ce": {"n_restarts": 5},
        "apgd-dlr": {"n_restarts": 5},
        "fab": {"n_restarts": 5},
        "square": {},
        "apgd-t": {"n_target_classes": 9},
        "fab-t": {},
    },
    "rand": {"apgd-ce": {"eot_iter": 20, "n_restarts": 1}, "apgd-dlr": {"eot_iter": 20, "n_restarts": 1}},
}
# Losses for models with too few classes for the difference of logits ratio: name -> (classes needed, instead).
FALLBACKS = {"dlr": (3, "margin"), "targeted-dlr": (4, "targeted-margin")}

NOT_COVERED = (
    "AutoAttack is a test for deterministic, differentiable classifiers. Defences that adapt at test time, randomise "
    "or purify their input, or hide their gradients need adaptive attacks written for them."
)


def ensemble(threat, version="standard", seed=0, num_classes=None):
    """The attacks of a version under a threat model, by name, in the order run."""
    attacks = {}
    for name, changes in VERSIONS[check_choice("version", version, tuple(VERSIONS))].items():
        kind, settings = ATTACKS[name]
        settings = {**settings, **(L1.get(name, {}) if threat.norm == "L1" else {}), **changes}
        needed, instead = FALLBACKS.get(settings.get("loss"), (0, None))
        if num_classes is not None and num_classes < needed:
            settings["loss"] = instead
        attacks[name] = kind(threat, seed=seed, **settings)
    return attacks


@dataclass(frozen=True)
class AutoAttackResult:
    """What AutoAttack did to a set of images.

    Attributes:
        x_adv: float32, numpy, in the shape of the images: misclassified, in the ball and in [0, 1], where an attack
            succeeded, else the image itself.
        correct: name -> booleans (n,): images still classified correctly, at first ("clean") and after each attack.
        broken_by: the attack that broke each image, "clean" where it was misclassified all along, "" where none did.
        size: norm of each perturbation, float32 (n,), 0 where no attack succeeded.
        evaluations: name -> evaluations of the model spent on each image (gradient steps or queries), int (n,).
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
    uncompiled model. Random draws are keyed by seed, attack and the image's place in the data set.

    Args:
        threat: the `ThreatModel`.
        version: "standard" (APGD on cross-entropy, targeted APGD, targeted FAB, Square), "short" (the first two),
            "plus" (six attacks, five restarts) or "rand" (gradients averaged over 20 samples of a random output).
        batch_size: the most images, or targets of images, attacked at a time.
        seed: of all random draws, in [0, 2**31).

    Raises:
        ValueError: an argument is not accepted.

    Calling it, `autoattack(model, x, y)`, with images (n, height, width, channels) in [0, 1] and class indices (n,),
    numpy or tensors, gives an `AutoAttackResult`. `model` maps images to logits; the result holds warnings about
    what looks like a defence that AutoAttack cannot judge.

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
        correct = {"clean": (logits.argmax(1) == y) & ~np.isnan(logits).any(1)}
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
        doubts += sanity.of_result({name: float(np.mean(each)) for name, each in correct.items()})
        for doubt in doubts:
            warnings.warn(doubt, stacklevel=2)
        size = np.concatenate([self.threat.size(x_adv[i : i + 1] - x[i : i + 1]) for i in range(len(x))])
        return AutoAttackResult(x_adv, correct, broken_by.astype(str), size, evaluations, unconfirmed, tuple(doubts))

    def on(self, model):
        """This evaluation of one model, in float32, with what is compiled for it."""
        try:
            run = self._runs.get(model)
            if run is None:
                run = self._runs[model] = Run(self, model)
        except TypeError:  # a callable that cannot be weakly referenced or hashed
            run = Run(self, model)
        run.follow(model)
        return run


class Run:
    """AutoAttack's attacks on one model, compiled once per batch shape."""

    def __init__(self, autoattack, model):
        self._autoattack = autoattack
        self._lanes: dict[str, Lanes] = {}
        # Only a copy may be kept: the run is forgotten when the model is.
        copy = as_float32(model) if isinstance(model, keras.Model) else model
        self._copy = None if copy is model else copy
        self._model = weakref.ref(model) if self._copy is None else lambda: self._copy

    def follow(self, model):
        """Take over the weights that `model` has now."""
        if self._copy is not None:
            self._copy.set_weights(model.get_weights())

    def doubts(self, x, y):
        """What speaks against judging this model by AutoAttack, from a few images."""
        yield from sanity.of_model(self._model(), self.logits, x, y)
        losses_used = {attack.loss for attack in ensemble(self._autoattack.threat, self._autoattack.version).values()}
        num_classes = self.logits(x[:1]).shape[1]
        yield from sanity.of_classes(num_classes, {k: v for k, v in FALLBACKS.items() if k in losses_used})

    def attacks(self, num_classes):
        """The attacks by name, in the order run."""
        settings = self._autoattack
        return ensemble(settings.threat, settings.version, settings.seed, num_classes)

    def attack(self, name, x, y, targets, index):
        """Attack images that the model classifies correctly; see `Lanes.run`."""
        model, settings = self._model(), self._autoattack
        if name not in self._lanes:
            attacks = self.attacks(targets.shape[1] + 1)
            self._lanes[name] = Lanes(attacks[name], model, stream=1 + list(attacks).index(name))

        def confirm(candidates, labels):
            return self.logits(candidates).argmax(1) != labels

        return self._lanes[name].run(x, y, targets, index.astype(np.int32), settings.batch_size, confirm)

    def logits(self, x):
        """Logits of the uncompiled model, float32 (n, classes), in batches of one size."""
        size, model = self._autoattack.batch_size, self._model()
        parts = []
        for start in range(0, len(x), size):
            part = x[start : start + size]
            missing = lane_count(len(part), size) - len(part)
            padded = ops.convert_to_tensor(np.pad(part, ((0, missing), (0, 0), (0, 0), (0, 0)), mode="edge"))
            logits = model(padded, training=False) if isinstance(model, keras.Layer) else model(padded)
            logits = ops.cast(logits, "float32")
            parts.append(ops.convert_to_numpy(logits)[: len(part)])
        return np.concatenate(parts)
