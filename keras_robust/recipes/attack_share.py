"""Share of a training step that the attack takes."""

import time

import numpy as np
from keras import ops

from keras_robust.recipes.datasets import ValidationFeed
from keras_robust.training.adversarial_model import AdversarialModel


def attack_share(trainer: AdversarialModel, validation: ValidationFeed, images_per_second: float) -> float:
    """The part of a step, in [0, 1], that the training attack takes.

    A compiled step cannot be stopped in the middle: the attack runs by itself on a batch of the validation's size, once
    it has been compiled, and its time per image is set against that of a whole step.
    """
    x, y = validation.first(validation.batch_size)

    def attack() -> np.ndarray:
        return np.asarray(ops.convert_to_numpy(trainer.attacks[0](trainer.model, x, y)))

    attack()
    start = time.perf_counter()
    attack()
    return min((time.perf_counter() - start) / len(x) * images_per_second, 1.0)
