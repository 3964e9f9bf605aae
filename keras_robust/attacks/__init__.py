"""White-box and black-box attacks in keras.ops: `attack(model, x, y)` gives adversarial images in the threat model."""

from keras_robust.attacks.apgd import APGD
from keras_robust.attacks.autoattack import AutoAttack
from keras_robust.attacks.base import Attack
from keras_robust.attacks.ddn import DDN
from keras_robust.attacks.fab import FAB
from keras_robust.attacks.fmn import FMN
from keras_robust.attacks.minimal import MinimalNormAttack
from keras_robust.attacks.pgd import FGSM, NFGSM, PGD
from keras_robust.attacks.radius_search import RadiusSearch
from keras_robust.attacks.result import AttackResult
from keras_robust.attacks.sigma_zero import SigmaZero
from keras_robust.attacks.square import Square

__all__ = [
    "APGD",
    "DDN",
    "FAB",
    "FGSM",
    "FMN",
    "NFGSM",
    "PGD",
    "Attack",
    "AttackResult",
    "AutoAttack",
    "MinimalNormAttack",
    "RadiusSearch",
    "SigmaZero",
    "Square",
]
