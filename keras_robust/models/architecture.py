"""Base of the families of models."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_robust.layers import ConvStem, LayerNorm, PatchStem
from keras_robust.layers.initializers import Normal
from keras_robust.types import Tensor


@dataclass(frozen=True)
class Options:
    """Choices of a user about a model, whatever its architecture (see `keras_robust.models.create`)."""

    num_classes: int
    input_size: tuple[int, int]
    drop_path_rate: float
    layer_scale_init: float | None


class Architecture(ABC):
    """A row of the model table: the numbers that tell a model from others of its family.

    Attributes:
        layer_scale_init: published initial value of LayerScale; None for models without it.
        scales_decay: whether the published training decays the scales of LayerNorm and LayerScale.
    """

    scales_decay = False
    layer_scale_init: float | None = None

    @property
    def min_size(self) -> int:
        """Smallest height and width of the images, in pixels; the total stride."""
        return 32

    @property
    def multiple_of(self) -> int:
        """What heights and widths are multiples of, in pixels."""
        return 1

    @abstractmethod
    def build(self, x: Tensor, options: Any) -> Any:
        """Put the graph together.

        Args:
            x: symbolic images, `(batch, height, width, 3)`, normalised if the model normalises.
            options: an `Options`.

        Returns:
            Symbolic float32 logits, `(batch, options.num_classes)`.
        """

    @property
    @abstractmethod
    def feature_layers(self) -> Any:
        """Dict from stride to the name of the layer that ends the stage of that stride, in the order of the graph."""

    def feature_maps(self, model: Any) -> Any:
        """Dict from stride to the symbolic feature map `(batch, rows, columns, channels)` of a `model` of this row."""
        return {stride: model.get_layer(name).output for stride, name in self.feature_layers.items()}


def drop_path_rates(last: Any, depth: Any) -> Any:
    """Drop probability of each of `depth` blocks: rising linearly from 0 to `last`."""
    return np.linspace(0, last, depth).tolist()


def patches(x: Tensor, channels: Any, conv_stem: Any, patch_size: int = 16) -> Any:
    """Patches of `patch_size` pixels: a PatchStem, or a ConvStem whose 3x3 convolutions have `conv_stem` channels."""
    if conv_stem is None:
        return PatchStem(channels, stride=patch_size, name="stem")(x)
    return ConvStem(conv_stem, stride=patch_size, out_channels=channels, name="stem")(x)


def pool(x: Tensor) -> Any:
    """Global average of a feature map: `(batch, channels)`, float32."""
    return keras.layers.GlobalAveragePooling2D(data_format="channels_last", dtype="float32", name="pool")(x)


def norm_and_classify(x: Tensor, num_classes: Any, norm_name: str = "norm") -> Any:
    """LayerNorm, then `classify`."""
    return classify(LayerNorm(dtype="float32", name=norm_name)(x), num_classes)


def classify(x: Tensor, num_classes: Any) -> Any:
    """Logits `(batch, num_classes)` of feature vectors `(batch, channels)`; float32 whatever the precision policy."""
    return keras.layers.Dense(num_classes, kernel_initializer=Normal(), dtype="float32", name="head")(x)
