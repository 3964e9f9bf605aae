"""keras_robust: adversarially robust image classification for Keras 3."""

from keras_robust import attacks, data, evaluation, export, losses, models, training, weights
from keras_robust.threat import ThreatModel
from keras_robust.training.adversarial import AdversarialModel

__version__ = "0.1.0"
__all__ = [
    "AdversarialModel",
    "ThreatModel",
    "attacks",
    "data",
    "evaluation",
    "export",
    "losses",
    "models",
    "training",
    "weights",
]
