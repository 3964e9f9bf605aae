"""Every architecture by name: a table of data, and the functions that read it."""

from numbers import Integral, Real
from typing import Any

import keras

from keras_robust.checks import LARGEST, check_choice, check_count, check_number
from keras_robust.layers import ImageInput, Normalize
from keras_robust.models.architecture import Architecture, Options
from keras_robust.models.convnext import ConvNeXt, ConvNeXtV2, IsotropicConvNeXt
from keras_robust.models.preact_resnet import PreActResNet
from keras_robust.models.resnet import ResNet
from keras_robust.models.swin import Swin
from keras_robust.models.vit import ViT
from keras_robust.models.xcit import XCiT
from keras_robust.weights.loading import architecture_name

ROBARCH: dict[str, Any] = {
    "stem_channels": 96,
    "stem_pool": False,
    "activation": "silu",
    "groups": 2,
    "first_norm": False,
    "squeeze_ratio": 0.25,
}

DEEPMIND: dict[str, Any] = {"activation": "silu", "same_padding": True}

# A head of more has more weights than any net here.
MOST_CLASSES = 1_000_000

# A model with a ConvStem is called as its sibling with a PatchStem, with the suffix `_convstem`.
ARCHITECTURES: dict[str, Architecture] = {
    "convnext_atto": ConvNeXt((2, 2, 6, 2), (40, 80, 160, 320)),
    "convnext_atto_convstem": ConvNeXt((2, 2, 6, 2), (40, 80, 160, 320), conv_stem=(20, 40)),
    "convnext_tiny": ConvNeXt((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_tiny_convstem": ConvNeXt((3, 3, 9, 3), (96, 192, 384, 768), conv_stem=(48, 96)),
    "convnext_small": ConvNeXt((3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_small_convstem": ConvNeXt((3, 3, 27, 3), (96, 192, 384, 768), conv_stem=(48, 96)),
    "convnext_base": ConvNeXt((3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnext_base_convstem": ConvNeXt((3, 3, 27, 3), (128, 256, 512, 1024), conv_stem=(64, 96, 128)),
    "convnext_large": ConvNeXt((3, 3, 27, 3), (192, 384, 768, 1536)),
    "convnext_large_convstem": ConvNeXt((3, 3, 27, 3), (192, 384, 768, 1536), conv_stem=(96, 144, 192)),
    "convnext_large_meansparse": ConvNeXt((3, 3, 27, 3), (192, 384, 768, 1536), mean_sparse=True),
    "convnextv2_atto": ConvNeXtV2((2, 2, 6, 2), (40, 80, 160, 320)),
    "convnextv2_large": ConvNeXtV2((3, 3, 27, 3), (192, 384, 768, 1536)),
    "convnext_isotropic_small": IsotropicConvNeXt(18, 384),
    "convnext_isotropic_small_convstem": IsotropicConvNeXt(18, 384, conv_stem=(48, 96, 192, 384)),
    "vit_tiny": ViT(192, 3),
    "vit_tiny_convstem": ViT(192, 3, conv_stem=(24, 48, 96, 192)),
    "vit_small": ViT(384, 6),
    "vit_small_convstem": ViT(384, 6, conv_stem=(48, 96, 192, 384)),
    "vit_medium": ViT(512, 8, layer_scale_init=1e-6, class_position=False),
    "vit_medium_convstem": ViT(512, 8, conv_stem=(48, 96, 192, 384), layer_scale_init=1e-6, class_position=False),
    "vit_base": ViT(768, 12),
    "vit_base_convstem": ViT(768, 12, conv_stem=(48, 96, 192, 384)),
    # AdvXL's: the average of the patches is classified.
    "vit_large_patch14": ViT(1024, 16, depth=24, patch_size=14, average=True),
    "vit_huge_patch14": ViT(1280, 16, depth=32, patch_size=14, average=True),
    "vit_giant_patch14": ViT(1408, 16, depth=40, patch_size=14, mlp_ratio=48 / 11, average=True),
    "resnet18": ResNet((2, 2, 2, 2), (64, 128, 256, 512), basic=True),
    "resnet50": ResNet((3, 4, 6, 3), (256, 512, 1024, 2048)),
    "resnet50_gelu": ResNet((3, 4, 6, 3), (256, 512, 1024, 2048), stem_activation="gelu", activation="gelu"),
    "resnet101": ResNet((3, 4, 23, 3), (256, 512, 1024, 2048)),
    "resnet152": ResNet((3, 8, 36, 3), (256, 512, 1024, 2048)),
    "wide_resnet50_2": ResNet((3, 4, 6, 3), (256, 512, 1024, 2048), width_ratio=0.5),
    "xcit_small": XCiT(384, 8),
    "xcit_medium": XCiT(512, 8),
    "xcit_large": XCiT(768, 16),
    "swin_small": Swin(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "swin_base": Swin(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "swin_large": Swin(192, (2, 2, 18, 2), (6, 12, 24, 48)),
    "swin_large_meansparse": Swin(192, (2, 2, 18, 2), (6, 12, 24, 48), mean_sparse=True),
    # Those of MIMIR (Xu et al., 2023).
    "swin_base_mimir": Swin(128, (2, 2, 18, 2), (4, 8, 16, 32), norm_epsilon=1e-6),
    "swin_large_mimir": Swin(192, (2, 2, 18, 2), (6, 12, 24, 48), window_size=(14, 14, 14, 7), norm_epsilon=1e-6),
    "robarch_small": ResNet((5, 8, 13, 1), (288, 576, 1120, 2160), **ROBARCH),
    "robarch_medium": ResNet((7, 11, 18, 1), (336, 672, 1328, 2624), **ROBARCH),
    "robarch_large": ResNet((7, 11, 18, 1), (512, 1024, 2016, 4032), **ROBARCH),
    # For CIFAR. Those with the suffix `_swish` are DeepMind's (Gowal et al., 2020).
    "wide_resnet28_10": PreActResNet((4, 4, 4), (160, 320, 640), 16),
    "wide_resnet28_10_swish": PreActResNet((4, 4, 4), (160, 320, 640), 16, **DEEPMIND),
    "wide_resnet34_10": PreActResNet((5, 5, 5), (160, 320, 640), 16),
    "wide_resnet34_10_swish": PreActResNet((5, 5, 5), (160, 320, 640), 16, **DEEPMIND),
    "wide_resnet70_16": PreActResNet((11, 11, 11), (256, 512, 1024), 16),
    "wide_resnet70_16_swish": PreActResNet((11, 11, 11), (256, 512, 1024), 16, **DEEPMIND),
    # Rice et al. (2020) have a batch norm before the classifier, Wong et al. (2020) have none.
    "preact_resnet18": PreActResNet((2, 2, 2, 2), (64, 128, 256, 512), 64, shortcut_activated=False, final_norm=False),
    "preact_resnet18_norm": PreActResNet((2, 2, 2, 2), (64, 128, 256, 512), 64),
    "preact_resnet18_swish": PreActResNet(
        (2, 2, 2, 2), (64, 128, 256, 512), 64, shortcut_size=3, shortcut_activated=False, **DEEPMIND
    ),
}


def names() -> list[str]:
    """The names of all models that `create` can build, as a list of strings."""
    return list(ARCHITECTURES)


def architecture(name: str) -> Any:
    """The row of the model table called `name`.

    Raises:
        ValueError: there is no model of that name; the message lists the nearest names.
    """
    return ARCHITECTURES[check_choice("name", name, ARCHITECTURES)]


def architecture_of(model: keras.Model) -> Architecture | None:
    """The row of the model table that a model was made from, also once it was saved and loaded; else None.

    A model's own name says nothing: a user's model may be called "resnet50".

    Example:
        >>> kr.models.architecture_of(kr.models.create("vit_tiny")) == kr.models.architecture("vit_tiny")
        True
        >>> kr.models.architecture_of(model) is None
        True
    """
    return ARCHITECTURES.get(architecture_name(model) or "")


def register(name: str, row: Architecture) -> None:
    """Add an architecture to those that `create` builds by name.

    Args:
        name: a new one.
        row: its `Architecture`, as `kr.models.convnext.ConvNeXt((1, 1, 1, 1), (8, 16, 32, 64))`.

    Raises:
        ValueError: the name is taken, or `row` is none.

    Example:
        >>> from keras_robust.models.vit import ViT
        >>> kr.models.register("vit_mini", ViT(64, 2, depth=2))
        >>> kr.models.create("vit_mini", num_classes=10, input_size=32).count_params()
        150346
    """
    if name in ARCHITECTURES:
        raise ValueError(f"name must be a new one; received {name!r}, which there is already.")
    if not isinstance(row, Architecture):
        raise ValueError(f"row must be an Architecture, e.g. a ViT(...); received {row!r}.")
    ARCHITECTURES[name] = row


def create(
    name: str,
    num_classes: float = 1000,
    input_size: Any = 224,
    drop_path_rate: float | str = 0.0,
    normalization: str | tuple[Any, ...] | None = None,
    layer_scale_init: float | None = None,
) -> Any:
    """Build a classifier with random weights.

    The model takes images `(batch, height, width, 3)`, float, pixels in [0, 1], of any height and width its family
    allows, whatever `input_size` is: convolutional families take every size from their total stride upwards, vision
    transformers multiples of their patch of 16 or 14 pixels. It returns float32 logits `(batch, num_classes)`.

    Args:
        name: one of `names()`; also the name of the returned model.
        num_classes: number of logits.
        input_size: native height and width in pixels, an int or a pair: the size whose position embedding is learned
            (vision transformers, multiples of their patch; other families do not depend on it).
        drop_path_rate: stochastic depth, the drop probability of the last block; it rises linearly from 0 at the first.
        normalization: None for a model on raw pixels, or `(mean, std)` with 3 numbers each in units of the pixels:
            the model then starts with `(x - mean) / std`.
        layer_scale_init: initial value of LayerScale, for models that have it; None for the published one. A larger
            one than the published 1e-6 makes short trainings quicker.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: an argument is not as described; calling the model with images of a size it cannot take.

    Example:

    >>> model = create("vit_small_convstem", num_classes=10, input_size=64)
    >>> tuple(model(keras.random.uniform((2, 96, 64, 3))).shape)
    (2, 10)
    """
    row = architecture(name)
    options = Options(
        num_classes=_class_count(num_classes),
        input_size=_height_and_width(input_size, row.multiple_of),
        drop_path_rate=_rate(drop_path_rate),
        layer_scale_init=_layer_scale_init(row, name, layer_scale_init),
    )
    inputs = keras.Input((None, None, 3), name="images")
    x = ImageInput(row.min_size, row.multiple_of, name, name="image_input")(inputs)
    if normalization is not None:
        mean, std = _mean_and_std(normalization)
        try:
            x = Normalize(mean, std, name="normalize")(x)
        except ValueError as error:
            raise ValueError(f"normalization: {error}") from error
    return keras.Model(inputs, row.build(x, options), name=name)


def _class_count(num_classes: Any) -> int:
    if check_count("num_classes", num_classes) > MOST_CLASSES:
        raise ValueError(f"num_classes must be at most {MOST_CLASSES:,}; received {num_classes!r}.")
    return int(num_classes)


def _rate(drop_path_rate: float | str) -> float:
    if not isinstance(drop_path_rate, Real) or not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate must lie in [0, 1), received {drop_path_rate!r}")
    return float(drop_path_rate)


def _layer_scale_init(row: Any, name: str, value: float | None) -> float | None:
    if value is None:
        return row.layer_scale_init
    if row.layer_scale_init is None:
        raise ValueError(f"layer_scale_init must be None: {name} has no LayerScale, received {value!r}")
    return check_number("layer_scale_init", value, least=-LARGEST)


def _height_and_width(input_size: Any, multiple: int) -> tuple[int, int]:
    size = input_size if isinstance(input_size, (tuple, list)) else (input_size, input_size)
    if len(size) != 2 or not all(isinstance(n, Integral) and int(n) > 0 and int(n) % multiple == 0 for n in size):
        rule = "ints" if multiple == 1 else f"multiples of {multiple} pixels"
        raise ValueError(f"input_size must be one or two positive {rule}, received {input_size!r}")
    return int(size[0]), int(size[1])


def _mean_and_std(normalization: Any) -> Any:
    if not isinstance(normalization, (tuple, list)) or len(normalization) != 2:
        raise ValueError(f"normalization must be None or a pair (mean, std), received {normalization!r}")
    return normalization
