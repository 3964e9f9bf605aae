"""Attack suites of an evaluation: AutoAttack's, the user's own attacks, or those for a model without gradients."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_robust.attacks import APGD, Attack, AutoAttack
from keras_robust.attacks.suite import AttackSuite, Transfer, is_differentiable
from keras_robust.attacks.versions import VERSIONS, ensemble, minimal
from keras_robust.checks import check_choice
from keras_robust.evaluation.settings import PROPAGATIONS
from keras_robust.threat import ThreatModel

TRANSFER_STEPS = 100


def attack_suite(
    model: Any,
    num_classes: int,
    threat: ThreatModel,
    attack: str | Sequence[Attack],
    batch_size: int,
    seed: int,
    surrogate: Any = None,
) -> AttackSuite:
    """The attacks on `model` under one threat model; see `keras_robust.evaluation.evaluate` for the arguments."""
    if not is_differentiable(model):
        if not threat.is_bounded:
            raise ValueError(f"threats must have a radius for a model without gradients; received {threat}.")
        return AttackSuite(model, threat, black_box_attacks(threat, num_classes, seed, surrogate), batch_size)
    if isinstance(attack, str) and not threat.is_bounded:
        return AttackSuite(model, threat, minimal(threat, seed), batch_size)
    if isinstance(attack, str):
        return AutoAttack(threat, attack, batch_size, seed).suite(model, num_classes)
    return AttackSuite(model, threat, named(attack, threat), batch_size)


def named(attacks: Sequence[Attack], threat: ThreatModel) -> dict[str, Attack]:
    """The user's attacks under a threat model, by short names such as "apgd-ce" and "apgd-ce-2".

    Without a bound, those that look for the nearest point.

    Raises:
        ValueError: an attack does not know the norm, or none looks for the nearest point.
    """
    found: dict[str, Attack] = {}
    chosen = [attack for attack in attacks if threat.is_bounded or attack.minimises_norm]
    if not chosen:
        raise ValueError(f"attack must hold one that looks for the nearest point, as FMN, for the threat {threat}.")
    for attack in chosen:
        name = base = attack.name
        number = 2
        while name in found:
            name, number = f"{base}-{number}", number + 1
        found[name] = attack.with_threat(threat)
    return found


def black_box_attacks(threat: ThreatModel, num_classes: int, seed: int, surrogate: Any) -> dict[str, Attack | Transfer]:
    """Square, after a transfer attack where there is a surrogate."""
    square = {"square": ensemble(threat, "standard", seed, num_classes)["square"]}
    if surrogate is None:
        return square
    attack = APGD(threat, n_iter=TRANSFER_STEPS, random_start=True, seed=seed)
    return {"transfer": Transfer(attack, surrogate), **square}


def check_attack(attack: str | Sequence[Attack], model: Any) -> None:
    """Raise a ValueError for what is no version of AutoAttack and no sequence of attacks that can be confirmed."""
    if isinstance(attack, str):
        check_choice("attack", attack, tuple(VERSIONS))
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


def settings_of(attacks: Mapping[str, Attack | Transfer], num_classes: int) -> dict[str, dict]:
    """The settings of attacks by name, as JSON, and the propagations of one of their evaluations."""
    described = {}
    for name, attack in attacks.items():
        config = {key: value for key, value in attack.get_config().items() if key != "threat"}
        kind = attack.attack if isinstance(attack, Transfer) else attack
        spent = attack.propagations(num_classes)
        described[name] = {"attack": type(kind).__name__, **config, PROPAGATIONS: spent}
    return described
