"""White-box attacks in keras.ops: `attack(model, x, y)` returns adversarial images inside the threat model."""

from keras_robust.attacks.apgd import APGD
from keras_robust.attacks.base import Attack
from keras_robust.attacks.pgd import FGSM, PGD

__all__ = ["APGD", "FGSM", "PGD", "Attack"]
