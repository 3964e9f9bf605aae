"""keras_robust: adversarially robust image classification for Keras 3."""

__version__ = "0.1.0"
