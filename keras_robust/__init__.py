"""keras_robust: adversarially robust image classification for Keras 3."""

from typing import TYPE_CHECKING

from keras_robust.lazy import lazy_attributes
from keras_robust.registration import register_with_keras

if TYPE_CHECKING:
    from keras_robust import attacks, data, evaluation, export, losses, models, recipes, segmentation, training, weights
    from keras_robust.models.adapt import adapt
    from keras_robust.threat import ThreatModel
    from keras_robust.training.adversarial_model import AdversarialModel

__version__ = "0.1.0"
__all__ = [
    "AdversarialModel",
    "ThreatModel",
    "adapt",
    "attacks",
    "data",
    "evaluation",
    "export",
    "losses",
    "models",
    "recipes",
    "segmentation",
    "training",
    "weights",
]

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "keras_robust.models.adapt": ("adapt",),
        "keras_robust.threat": ("ThreatModel",),
        "keras_robust.training.adversarial_model": ("AdversarialModel",),
    },
    ("attacks", "data", "evaluation", "export", "losses", "models", "recipes", "segmentation", "training", "weights"),
)

register_with_keras()
