"""Mixtures of two classifiers."""

from typing import Any

import keras

from keras_robust.layers import NonlinearMixture

# The transformation that MixedNUTS found for ImageNet with the Swin-L of Liu et al. 2023.
IMAGENET_SWIN_L: dict[str, Any] = {
    "share": 0.9971266414518896,
    "scale": 0.023535468936502525,
    "power": 2.7142857142857144,
    "bias": -0.2857142857142858,
}


def mixed_nuts(standard: Any, robust: Any, name: str = "mixednuts", **transformation: Any) -> Any:
    """Put an accurate and a robust classifier together (Bai et al., "MixedNUTS", 2024, arXiv 2402.02263).

    RobustBench's "Bai2024MixedNUTS" is the mixture of a ConvNeXt V2-L (gdrive:1-2CwsRuMZXr99PeU2Z7-iFjl_86uIR-Y), the
    accurate one, and "Liu2023Comprehensive_Swin-L". It is no preset, as one thing is not known here: whether its
    ConvNeXt V2-L takes raw or normalised pixels. RobustBench's code (1.1.1) has a mean and a deviation for it and does
    not use them; which of the two gives the 81.48 % of the board can be told with the file alone.

    Args:
        standard, robust: models from pixels in [0, 1] to logits, of the same classes and sizes of images. Their weights
            are shared.
        name: of the model.
        transformation: arguments of `keras_robust.layers.NonlinearMixture`; those of RobustBench's entry if not given.

    Returns:
        A functional `keras.Model` from images to log-probabilities `(batch, classes)`, which are logits, too.

    Raises:
        ValueError: the two have other numbers of classes, or the same name.

    Example:

    >>> standard, robust = (kr.models.create(f"convnext_atto{stem}", num_classes=10) for stem in ("", "_convstem"))
    >>> mixture = kr.models.mixed_nuts(standard, robust)
    >>> mixture.output_shape
    (None, 10)
    """
    if standard.output_shape != robust.output_shape:
        raise ValueError(
            f"standard and robust must have the same classes; received outputs {standard.output_shape} and "
            f"{robust.output_shape}."
        )
    if standard.name == robust.name:
        raise ValueError(f"standard and robust must be models of different names; both are called {robust.name!r}.")
    images = keras.Input(robust.input_shape[1:], name="images")
    mixture = NonlinearMixture(**(transformation or IMAGENET_SWIN_L), name="mixture")
    return keras.Model(images, mixture(standard(images), robust(images)), name=name)
