"""Layers of KerasCV's interface that do the paper's augmentation, for anybody's tf.data pipeline.

Each takes `{"images", "labels"}`, one image or a batch, and gives the same back, so that they stand among KerasCV's
own. What they do to a pixel, and the distributions that they draw from, are those of `kr.data.TrainPipeline`: the same
functions. With `"seeds"` in the inputs, int32 (2,) for each image, an image's augmentation is a function of these
alone, whatever other threads draw; else each layer draws from a generator of its own, as KerasCV's do.

They need TensorFlow and KerasCV, under any backend of Keras, and import them when one is first asked for.

Example:
    >>> import tensorflow as tf
    >>> layers = kr.data.layers
    >>> crop, vary, erase = layers.RandomResizedCrop(16), layers.RandAugment(), layers.RandomErasing()
    >>> mix = layers.MixUpOrCutMix()
    >>> photos = {"images": (255 * x).astype("uint8"), "labels": np.eye(5, dtype="float32")[y]}
    >>> stream = tf.data.Dataset.from_tensor_slices(photos).enumerate()
    >>> stream = stream.map(lambda i, photo: {**photo, "seeds": tf.stack([7, tf.cast(i, tf.int32)])})
    >>> stream = stream.map(crop).map(vary).map(erase).batch(4).map(mix)
    >>> stream = stream.map(lambda batch: (tf.clip_by_value(batch["images"], 0.0, 1.0), batch["labels"]))
    >>> images, labels = next(iter(stream))
    >>> images.shape, labels.shape
    (TensorShape([4, 16, 16, 3]), TensorShape([4, 5]))
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_robust.data.augmentation.keras_cv_layers import (
        MixUpOrCutMix,
        RandAugment,
        RandomErasing,
        RandomResizedCrop,
    )

__all__ = ["MixUpOrCutMix", "RandAugment", "RandomErasing", "RandomResizedCrop"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from keras_robust.data import tf_data_graph

    tf_data_graph.tensorflow()
    from keras_robust.data.augmentation import keras_cv_layers

    return getattr(keras_cv_layers, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
