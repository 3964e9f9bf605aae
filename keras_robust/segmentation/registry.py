"""Every segmentation model by name: a table of data, and the functions that build from it."""

from os import PathLike
from typing import Any

import keras

from keras_robust import models
from keras_robust import weights as weight_files
from keras_robust.checks import check_choice, check_count
from keras_robust.layers import ImageInput
from keras_robust.segmentation.upernet import AUXILIARY_LEVEL, LEVEL_NORM, STRIDES, UPerNet

SEGMENTERS: dict[str, UPerNet] = {
    "upernet_convnext_atto": UPerNet("convnext_atto", channels=96, auxiliary_channels=48),
    "upernet_convnext_atto_convstem": UPerNet("convnext_atto_convstem", channels=96, auxiliary_channels=48),
    "upernet_convnext_tiny": UPerNet("convnext_tiny"),
    "upernet_convnext_tiny_convstem": UPerNet("convnext_tiny_convstem"),
    "upernet_convnext_small": UPerNet("convnext_small"),
    "upernet_convnext_small_convstem": UPerNet("convnext_small_convstem"),
    "upernet_convnext_base": UPerNet("convnext_base"),
    "upernet_convnext_base_convstem": UPerNet("convnext_base_convstem"),
}


def names() -> list[str]:
    """The names of all segmentation models that `create` can build.

    Example:

    >>> "upernet_convnext_tiny_convstem" in names()
    True
    """
    return list(SEGMENTERS)


def segmenter(name: str) -> UPerNet:
    """The row of the table of segmentation models called `name`.

    Raises:
        ValueError: there is none of that name; the message lists the nearest names.
    """
    return SEGMENTERS[check_choice("name", name, SEGMENTERS)]


def segmenter_of(model: keras.Model) -> UPerNet:
    """The row that a model was made from, also once it was saved and loaded.

    Raises:
        ValueError: it was made from none.
    """
    row = SEGMENTERS.get(weight_files.architecture_name(model) or "")
    if row is None:
        raise ValueError(f"model must be from keras_robust.segmentation.create; received {model!r}.")
    return row


def create(
    name: str,
    num_classes: int = 21,
    drop_path_rate: float = 0.0,
    normalization: Any = None,
    layer_scale_init: float | None = None,
) -> keras.Model:
    """A segmentation model with random weights, without its auxiliary head.

    It takes images `(batch, height, width, 3)`, float, pixels in [0, 1], of any height and width from 32 pixels on, and
    returns float32 logits `(batch, height, width, num_classes)`.

    Args:
        name: one of `names()`; also the name of the model.
        num_classes: number of classes of a pixel.
        drop_path_rate, normalization, layer_scale_init: of the backbone, as of `kr.models.create`; published models
            have a `drop_path_rate` of 0.4 in training, and take raw pixels.

    Raises:
        ValueError: an argument is not as described.

    Example:

    >>> net = kr.segmentation.create("upernet_convnext_atto_convstem", num_classes=11)
    >>> tuple(net(keras.random.uniform((1, 48, 65, 3))).shape)
    (1, 48, 65, 11)
    """
    row = segmenter(name)
    num_classes = check_count("num_classes", num_classes, least=2)
    options = {
        "drop_path_rate": drop_path_rate,
        "normalization": normalization,
        "layer_scale_init": layer_scale_init,
    }
    backbone = models.features(models.create(row.backbone, num_classes=1, **options), STRIDES)
    next(layer for layer in backbone.layers if isinstance(layer, ImageInput)).architecture = name
    images = backbone.inputs[0]
    return keras.Model(images, row.build(backbone.outputs, images, num_classes), name=name)


def with_auxiliary_head(model: keras.Model) -> keras.Model:
    """A model to train: the logits of a segmentation model, and beside them those of a second head on its third map.

    It shares all weights with `model`, which is what is attacked, evaluated and saved; the second head, in training
    alone, helps the backbone (Zhao et al., "Pyramid Scene Parsing Network", 2017, section 3.3). `AdversarialModel`
    takes it with the objective `kr.segmentation.PixelCrossEntropy(auxiliary_weight=0.4)`.

    Returns:
        A `keras.Model` to a list of two float32 tensors `(batch, height, width, num_classes)`.

    Raises:
        ValueError: `model` is not from `create`.

    Example:

    >>> net = kr.segmentation.create("upernet_convnext_atto", num_classes=11)
    >>> kr.models.parameters(with_auxiliary_head(net)) - kr.models.parameters(net)
    69755
    """
    row = segmenter_of(model)
    level, images = model.get_layer(LEVEL_NORM.format(AUXILIARY_LEVEL)).output, model.inputs[0]
    auxiliary = row.build_auxiliary(level, images, model.output_shape[-1])
    return keras.Model(images, [model.outputs[0], auxiliary], name=model.name)


def load_backbone(model: keras.Model, source: keras.Model | str | PathLike, **options: Any) -> None:
    """The weights of a classifier's stem and stages into a segmentation model; its heads stay as they are.

    Args:
        model: from `create`.
        source: a classifier of the same architecture, as `kr.models.from_preset` and `kr.recipes.load_run` return it,
            or the path of any file with its weights that `kr.weights.load` reads.
        options: of `kr.weights.load`, for a path.

    Raises:
        ValueError: the source is of another architecture, normalises its pixels otherwise, or cannot be read.

    Example:

    >>> net = kr.segmentation.create("upernet_convnext_atto", num_classes=11)
    >>> load_backbone(net, kr.models.create("convnext_atto", num_classes=10))
    """
    row = segmenter_of(model)
    normalization = weight_files.normalization_of(model)
    if not isinstance(source, keras.Model):
        classifier = models.create(row.backbone, normalization=normalization)
        weight_files.load(classifier, source, head="skip", **options)
    else:
        classifier = source
        if weight_files.architecture_name(classifier) != row.backbone:
            raise ValueError(f"source must be a {row.backbone}, the backbone of {model.name}; received {source!r}.")
        if weight_files.normalization_of(classifier) != normalization:
            raise ValueError(
                f"source must normalise its pixels as the model does, by {normalization}; received one with "
                f"{weight_files.normalization_of(classifier)}."
            )
    values = {weight.path: weight for weight in models.features(classifier, STRIDES).weights}
    for weight in model.weights:
        if weight.path in values and "seed_generator" not in weight.path:
            weight.assign(keras.ops.convert_to_numpy(values.pop(weight.path)))
    left_over = [path for path in values if "seed_generator" not in path]
    if left_over:
        raise RuntimeError(f"{model.name} lacks weights of its backbone: {', '.join(left_over[:5])}.")
