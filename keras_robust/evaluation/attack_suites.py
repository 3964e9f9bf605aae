"""The attacks of an evaluation on one model under one threat model: AutoAttack's, the user's own, or black-box ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_robust.attacks import APGD, Attack, AutoAttack, sanity_checks
from keras_robust.attacks.autoattack import Run, ensemble
from keras_robust.attacks.batching import Attempts
from keras_robust.threat import ThreatModel

NOT_DIFFERENTIABLE = (
    "Black box: this model gives no gradients, so that only attacks without them were run ({stages}). They find less "
    "than gradient attacks: read the robust accuracy as an upper bound, far above what a white-box attack may leave."
)


def is_differentiable(model) -> bool:
    """Whether attacks may ask for gradients; models say so in an attribute, and all others are."""
    return getattr(model, "differentiable", True)


def attacker(
    model, threat: ThreatModel, attack: str | Sequence[Attack], batch_size: int, seed: int, surrogate: Any = None
) -> Run:
    """What attacks `model`: `logits(x)`, `doubts(x, y)`, `attacks(num_classes)` and `attack(...)` of a `Run`."""
    settings = AutoAttack(threat, attack if isinstance(attack, str) else "standard", batch_size, seed)
    if not is_differentiable(model):
        return BlackBox(settings, model, surrogate)
    return settings.on(model) if isinstance(attack, str) else OwnAttacks(settings, model, attack)


class OwnAttacks(Run):
    """A sequence of attacks of the user's choice, in the place of AutoAttack's."""

    def __init__(self, autoattack, model, attacks: Sequence[Attack]):
        super().__init__(autoattack, model)
        self._named: dict[str, Attack] = {}
        for attack in attacks:
            name = base = attack_name(attack)
            number = 2
            while name in self._named:
                name, number = f"{base}-{number}", number + 1
            self._named[name] = attack.with_threat(autoattack.threat)

    def doubts(self, x, y):
        yield from sanity_checks.of_model(self._model(), self.logits, x, y)

    def attacks(self, num_classes):
        return self._named


class BlackBox(Run):
    """A model without gradients: images that fool a surrogate, where there is one, then Square.

    Args:
        surrogate: a differentiable model of the same classes. APGD on its cross-entropy makes images that are then
            shown to the model under attack (transfer attack: Papernot et al. 2017).
    """

    def __init__(self, autoattack, model, surrogate=None):
        super().__init__(autoattack, model)
        self._settings, self._surrogate = autoattack, surrogate

    def doubts(self, x, y):
        yield from sanity_checks.of_outputs(self.logits, x)
        yield NOT_DIFFERENTIABLE.format(stages=" and ".join(self.attacks(self.logits(x[:1]).shape[1])))

    def attacks(self, num_classes):
        settings = self._settings
        attacks = {"square": ensemble(settings.threat, "standard", settings.seed, num_classes)["square"]}
        if self._surrogate is None:
            return attacks
        return {"transfer": APGD(settings.threat, n_iter=100, random_start=True, seed=settings.seed), **attacks}

    def attack(self, name, x, y, targets, index):
        if name != "transfer":
            return super().attack(name, x, y, targets, index)
        attack, size = self.attacks(targets.shape[1] + 1)[name], self._settings.batch_size
        x_adv = []
        for start in range(0, len(x), size):
            part = x[start : start + size]
            missing = min(size, len(x)) - len(part)
            padded = np.pad(part, ((0, missing), (0, 0), (0, 0), (0, 0)), mode="edge")
            labels = np.pad(y[start : start + size], (0, missing), mode="edge")
            x_adv.append(attack(self._surrogate, padded, labels)[: len(part)])
        x_adv = np.concatenate(x_adv)
        broken = self.logits(x_adv).argmax(1) != y
        x_adv = np.where(broken[:, None, None, None], x_adv, x)
        return Attempts(x_adv, broken, np.ones(len(x), np.int64), 0)


def attack_name(attack: Attack) -> str:
    """Short name of an attack, as "apgd-ce"."""
    loss = attack.loss if isinstance(attack.loss, str) else getattr(attack.loss, "__name__", "loss")
    return f"{type(attack).__name__}-{loss}".lower()


def check_attack(attack: str | Sequence[Attack], threats: Sequence[ThreatModel], model: Any) -> None:
    """Raise a ValueError for what is no version of AutoAttack and no sequence of attacks that can be confirmed."""
    if isinstance(attack, str):
        AutoAttack(threats[0], attack)
        return
    if not isinstance(attack, Sequence) or not attack:
        raise ValueError(f"attack must be a version of AutoAttack or a sequence of attacks; received {attack!r}.")
    for position, each in enumerate(attack):
        if not isinstance(each, Attack):
            raise ValueError(f"attack[{position}] must be an Attack; received {each!r}.")
        if each.returns == "last":
            raise ValueError(
                f'attack[{position}] must evaluate what it finds: returns="misclassified"; received returns="last".'
            )
    if not is_differentiable(model):
        raise ValueError("attack must be the name of a version: the model gives no gradients, its attacks are fixed.")


def settings_of(attacks: Mapping[str, Attack]) -> dict[str, dict]:
    """The settings of attacks by name, as JSON."""
    described = {}
    for name, attack in attacks.items():
        config = {key: value for key, value in attack.get_config().items() if key != "threat"}
        described[name] = {"attack": type(attack).__name__, **config}
    return described
