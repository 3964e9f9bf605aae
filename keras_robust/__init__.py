"""keras_robust: adversarially robust image classification for Keras 3."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_robust import attacks, data, evaluation, export, losses, models, recipes, training, weights
    from keras_robust.threat import ThreatModel
    from keras_robust.training.adversarial_model import AdversarialModel

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
    "recipes",
    "training",
    "weights",
]
_CLASSES = {
    "AdversarialModel": "keras_robust.training.adversarial_model",
    "ThreatModel": "keras_robust.threat",
}


def __getattr__(name: str) -> Any:
    """A part of the package, imported when it is first asked for: importing Keras and a framework takes seconds."""
    if name in _CLASSES:
        value = getattr(importlib.import_module(_CLASSES[name]), name)
    elif name in __all__:
        value = importlib.import_module(f"keras_robust.{name}")
    else:
        raise AttributeError(f"module 'keras_robust' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
