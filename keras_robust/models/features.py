"""Feature pyramids of classifiers, for downstream tasks."""

from typing import Any

import keras

from keras_robust.models.registry import architecture_of


def features(model: keras.Model, levels: Any = None) -> Any:
    """A model that gives the feature maps of a classifier instead of its logits, sharing its layers and weights.

    Args:
        model: a model made by `create`, or reloaded from a file; its name tells the architecture.
        levels: strides of the wanted maps, in pixels of the image: of (4, 8, 16, 32) for families with stages, of (1,
            2, 4) or (1, 2, 4, 8) for those of CIFAR, the side of a patch for the others. None for all that a model has.

    Returns:
        A `keras.Model` from images `(batch, height, width, 3)` to a list of feature maps `(batch, rows, columns,
        channels)`, one per level, in the order of `levels`: what the last block of each stage returns, before any final
        norm. The class token of a vision transformer is left out. (`predict` gives the map itself where it is one.)

    Raises:
        ValueError: the model's name is not one of `names()`, or the family has no map of a wanted stride.

    Example:

    >>> pyramid = features(kr.models.create("convnext_tiny"), levels=(8, 16, 32))
    >>> [tuple(feature_map.shape) for feature_map in pyramid(keras.random.uniform((1, 64, 96, 3)))]
    [(1, 8, 12, 192), (1, 4, 6, 384), (1, 2, 3, 768)]
    """
    row = architecture_of(model)
    if row is None:
        raise ValueError(f"model must be from keras_robust.models.create; received {model!r}.")
    maps = row.feature_maps(model)
    levels = tuple(maps) if levels is None else tuple(levels)
    if not levels or not set(levels) <= set(maps):
        raise ValueError(f"levels must be strides that {model.name} has, of {tuple(maps)}, received {levels}")
    return keras.Model(model.input, [maps[stride] for stride in levels], name=f"{model.name}_features")
