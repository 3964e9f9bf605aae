"""Radius search: an attack in balls, made to look for the smallest radius of each image at which it succeeds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_robust.attacks.base import Attack
from keras_robust.attacks.batching import Examples, Outcomes
from keras_robust.attacks.minimal import MinimalNormAttack
from keras_robust.checks import check_count
from keras_robust.threat import ThreatModel

NEARER = 0.9  # of the distance that another attack found, the radius to go on with


@keras.saving.register_keras_serializable("keras_robust")
class RadiusSearch(MinimalNormAttack):
    """Bisection over the radius, for each image on its own, of an attack such as APGD or targeted APGD.

    The first radius is that of the attack. It doubles until the attack succeeds on the image, and is halved between the
    largest radius of a failure and the distance of the nearest misclassified point from then on. Success ends a run, so
    that most of the time goes into radii at which the attack fails. In a suite, after an attack that found a point, the
    search begins a little nearer than that.

    Args:
        attack: `APGD`, `PGD`, `FGSM` or `Square`, with a threat model whose radius is about what an image takes, and
            returns="misclassified".
        n_steps: radii per image.
        threat: none, for the nearest point at any distance; or a `ThreatModel` of the same norm: the attack then runs
            once, at its radius.

    Calling it returns an `AttackResult`, as `MinimalNormAttack` says.

    Example:
        >>> apgd = kr.attacks.APGD(threat, n_iter=5, loss="targeted-dlr", returns="misclassified")
        >>> distances = RadiusSearch(apgd, n_steps=8)(model, x, y).distances
    """

    supported_norms = ("Linf", "L2", "L1")

    def __init__(self, attack: Attack, n_steps: int = 20, threat: ThreatModel | None = None) -> None:
        if not isinstance(attack, Attack) or attack.minimises_norm or attack.returns != "misclassified":
            raise ValueError(
                "attack must look for misclassified points in a ball, as APGD(..., returns='misclassified') does; "
                f"received {attack!r}."
            )
        if not attack.threat.eps:
            raise ValueError(f"attack must have a radius above 0 to begin with; received {attack!r}.")
        if threat is not None and threat.norm != attack.threat.norm:
            raise ValueError(f"threat must be of the attack's norm, {attack.threat.norm}; received {threat}.")
        super().__init__(threat or attack.threat.norm, attack.evaluations, attack.loss, attack.seed)
        self.attack, self.n_steps = attack, check_count("n_steps", n_steps)
        self.n_restarts, self.n_target_classes = attack.n_restarts, attack.n_target_classes
        self.eot_iter = attack.eot_iter
        self.evaluations = self.n_steps * attack.evaluations

    @property
    def name(self) -> str:
        return f"minimal-{self.attack.name}"

    def propagations(self, num_classes: int) -> int:
        return self.attack.propagations(num_classes)

    def runner(self, model: Any, stream: int, trace: bool, side_by_side: bool, aims: bool) -> "RadiusRunner":
        return RadiusRunner(self, self.attack.runner(model, stream, trace, side_by_side, aims))

    def perturb(self, *arguments: Any, **options: Any) -> Any:
        raise ValueError("RadiusSearch runs on its own, and not within a training step.")

    def arguments(self) -> dict[str, Any]:
        return {"attack": self.attack, "n_steps": self.n_steps, "threat": self.threat}

    def get_config(self) -> dict[str, Any]:
        attack = keras.saving.serialize_keras_object(self.attack)
        return {"attack": attack, "n_steps": self.n_steps, "threat": self.threat.get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "RadiusSearch":
        attack = keras.saving.deserialize_keras_object(config["attack"])
        return cls(attack, config["n_steps"], ThreatModel(**config["threat"]))


class RadiusRunner:
    """What runs a `RadiusSearch` on many images: all of them meet the attack at their next radius, in turn.

    Args:
        search: the `RadiusSearch`.
        runner: of its attack.
    """

    def __init__(self, search: RadiusSearch, runner: Any) -> None:
        self._search, self._runner = search, runner

    def run(self, examples: Examples, batch_size: int, confirm: Callable) -> Outcomes:
        """As `SlotRunner.run`."""
        threat, norm = self._search.threat, self._search.threat.geometry
        x_adv, evaluations, unconfirmed = examples.x.copy(), np.zeros(len(examples), np.int64), 0
        failed, found = np.zeros(len(examples)), np.full(len(examples), np.inf)  # radius, and distance of the nearest
        limit = norm.diameter(examples.x.shape[1:])
        attack = self._search.attack
        n_attempts = attack.n_restarts * attack.n_targets(examples.targets.shape[1] + 1)
        first = threat.eps if threat.is_bounded else attack.threat.eps
        known = np.full(len(examples), np.inf) if examples.known is None else examples.known
        for step in range(1 if threat.is_bounded else self._search.n_steps):
            nearest = np.minimum(found, known)
            failed = np.where(failed < nearest, failed, 0.0)  # a later start may succeed where an earlier one failed
            outwards = np.where(failed > 0, np.minimum(2 * failed, limit), first)
            inwards = np.where((failed == 0) & np.isfinite(known), NEARER * nearest, (failed + nearest) / 2)
            radii = np.where(np.isinf(nearest), outwards, inwards).astype(np.float32)
            # From another random point at every radius, if from one: a bad one must not decide them all.
            at_radii = replace(examples, eps=radii, first_attempt=step * n_attempts)
            outcomes = self._runner.run(at_radii, batch_size, confirm)
            evaluations += outcomes.evaluations
            unconfirmed += outcomes.unconfirmed
            distance = np.where(outcomes.misclassified, norm.measure(outcomes.x_adv, examples.x), np.inf)
            nearer = distance < found
            x_adv[nearer], found[nearer] = outcomes.x_adv[nearer], distance[nearer]
            failed = np.where(outcomes.misclassified, failed, np.maximum(failed, radii))
        loss = np.full(len(examples), -np.inf, np.float32)  # at another radius each: they say nothing together
        return Outcomes(x_adv, np.isfinite(found), evaluations, unconfirmed, loss)
