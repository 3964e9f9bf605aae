"""Adaptation of any image classifier: pixels in [0, 1] in, logits out, and a head for other classes."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust.checks import check_count
from keras_robust.layers import ImageInput, Normalize, ReverseChannels
from keras_robust.model_graph import (
    activation_of,
    again,
    changes_no_value,
    graph_of,
    is_probabilities,
    last_operation,
    maker_of,
    rebuilt,
    takes_bytes,
)
from keras_robust.models.outputs import class_names as class_names_of
from keras_robust.models.outputs import set_class_names
from keras_robust.models.pixel_ranges import APPLICATIONS, PixelRange, application, pixel_range
from keras_robust.weights import keras_archive
from keras_robust.weights.loading import architecture_name

HUB, KERAS_FILE = "hub:", ".keras"
POOLINGS = ("avg", "max", "token")
# Most by which logits may differ from the original's, over the largest logit.
TOLERANCE = 1e-3
PROBE = 64  # height and width of random images for nets of any size


def adapt(
    model: Any,
    pixels: str | tuple[Any, Any] | None = None,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    pooling: str | None = None,
    input_size: int | tuple[int, int] | None = None,
    channels_first: bool | None = None,
    probabilities: bool = False,
) -> keras.Model:
    """A model as this package takes it, of any image classifier: pixels in [0, 1] in, float32 logits out.

    The range of the pixels and their normalisation go into the graph, a softmax at the end goes, the head is replaced
    where there are other classes, and height and width are left open where the net allows. Functional and sequential
    models, tasks and backbones of KerasHub are copied; a subclassed model, and one whose layers cannot be made again,
    is used as it is and shares its weights; a model of this package that keeps its head is what it should be. What
    comes out is tried on random images: it must answer as the original does.

    Args:
        model: a Keras model, functional, sequential or subclassed; a task or backbone of KerasHub; a
            `keras.layers.TorchModuleWrapper` or, on PyTorch, a `torch.nn.Module`.
        pixels: what the model takes: "0..1", "0..255", "-1..1", "imagenet" (normalised with ImageNet's mean and
            standard deviation), "applications:ResNet50" (as that function's published weights), or (mean, std) in
            units of pixels in [0, 1]. Not needed where the model tells it: it begins with `Rescaling` or
            `Normalization` for 8-bit pixels, or it is a task of KerasHub with a preprocessor.
        num_classes: a new, random head for so many classes; None keeps the model's.
        class_names: of the outputs, in their order; None for those that the model knows, where it keeps its head.
        pooling: of a model without a head whose outputs are feature maps ("avg", "max") or tokens ("token", the
            first, or "avg"); only with `num_classes`.
        input_size: height and width, pixels, of a model that does not tell it.
        channels_first: whether the model takes (batch, channels, height, width); None for what it tells: yes for
            modules of PyTorch and inputs of shape (3, height, width).
        probabilities: a subclassed model returns probabilities, and its logarithms are taken. Where it is certain,
            their gradients vanish: better return logits.

    Returns:
        A functional `keras.Model` that `AdversarialModel`, `evaluate` and `export` take.

    Raises:
        ValueError: what is needed is not stated, does not fit the model, or its outputs are not one score per class.

    Example:
        >>> net = keras.applications.MobileNetV3Small(weights=None, classes=4, input_shape=(64, 64, 3))
        >>> robust = kr.adapt(net, class_names=["ant", "bee", "fly", "wasp"])
        >>> robust.input_shape, robust(keras.random.uniform((1, 96, 96, 3))).shape[1]
        ((None, None, None, 3), 4)
    """
    if num_classes is not None:
        check_count("num_classes", num_classes, least=2)
    if pooling is not None and (num_classes is None or pooling not in POOLINGS):
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, with num_classes; received {pooling!r}.")
    net = _as_layer(model)
    taken = pixel_range(net, pixels)
    if num_classes is None and class_names is None and architecture_name(net) is not None:
        return net
    first = _is_channels_first(net) if channels_first is None else channels_first
    channels, size = _input_of(net, first)
    if input_size is not None:
        size = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    before = _Before(taken, channels, size, first)
    graph = graph_of(net)
    if graph is not None:
        adapted = _of_graph(graph, before, num_classes, pooling)
    else:
        adapted = _of_layer(net, before, num_classes, pooling, probabilities)
    if class_names is None and num_classes is None:
        class_names = class_names_of(net)
    if class_names is not None:
        set_class_names(adapted, class_names)
    return adapted


def is_foreign(name: str) -> bool:
    """Whether a model's name is "applications:NAME", "hub:PRESET" or the path of a .keras file."""
    return name.startswith((APPLICATIONS, HUB)) or name.endswith(KERAS_FILE)


def adapted(
    name: str, num_classes: int | None = None, pixels: Any = None, pretrained: bool = True, new_head: bool = False
) -> keras.Model:
    """An adapted model of another library, or of a file.

    Args:
        name: "applications:MobileNetV3Small", a function of `keras.applications`; "hub:resnet_18_imagenet", a preset of
            KerasHub's image classifiers; or the path of a .keras file. What these libraries have not yet, they
            download.
        num_classes: a new head where the model has another number of classes; None keeps the model's.
        pixels: see `adapt`; not for `applications:` and `hub:`, which tell it.
        pretrained: False for random weights, for which nothing but a small configuration is downloaded.
        new_head: a new head in any case.

    Raises:
        ValueError: no such model, or `adapt` needs what was not given.
        ImportError: keras-hub is not installed.
        OSError: what is missing cannot be downloaded.

    Example:
        >>> net = kr.models.adapted("applications:MobileNetV2", num_classes=5, pretrained=False)
        >>> net.output_shape
        (None, 5)
    """
    if pixels is not None and not name.endswith(KERAS_FILE):
        raise ValueError(f"pixels must be left out for {name}, which tells them; received {pixels!r}.")
    if name.startswith(APPLICATIONS):
        net = _fetched(name, application(name.removeprefix(APPLICATIONS)), weights="imagenet" if pretrained else None)
        pixels = None if takes_bytes(net) else name
    elif name.startswith(HUB):
        net = _fetched(name, _hub().from_preset, name.removeprefix(HUB), load_weights=pretrained)
    elif name.endswith(KERAS_FILE):
        net = keras_archive.load(name)
    else:
        raise ValueError(f"name must be applications:NAME, hub:PRESET or a .keras file; received {name!r}.")
    # One sigmoid tells two classes apart.
    classes = None if len(net.output_shape) != 2 else 2 if net.output_shape[1] == 1 else net.output_shape[1]
    kept = not new_head and classes == num_classes
    return adapt(net, pixels, num_classes=None if kept else num_classes)


def _fetched(name: str, make: Callable[..., keras.Model], *arguments: Any, **options: Any) -> keras.Model:
    try:
        return make(*arguments, **options)
    except Exception as error:  # Keras and the Hub have no class of their own for what a download may end in
        raise OSError(f"{name} cannot be had: {' '.join(str(error).split())[:300]}") from error


def _hub() -> Any:
    """KerasHub's image classifiers."""
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(f"hub: models need {error.name}: pip install keras-hub") from error
    return keras_hub.models.ImageClassifier


def _as_layer(model: Any) -> keras.Layer:
    if isinstance(model, keras.Layer):
        return model
    if keras.backend.backend() == "torch" and hasattr(model, "state_dict") and callable(model):
        return keras.layers.TorchModuleWrapper(model)
    raise ValueError(f"model must be a Keras model or layer (on PyTorch also a torch.nn.Module); received {model!r}.")


@dataclass(frozen=True)
class _Before:
    """What stands between pixels in [0, 1] and a net.

    `range`: of the pixels that the net takes; `size`: height and width that it is made for, None where any; `first`: it
    takes (batch, channels, height, width).
    """

    range: PixelRange
    channels: int
    size: tuple[int | None, ...]
    first: bool

    def inputs(self, size: tuple[int | None, ...]) -> tuple[Any, Any]:
        """Symbolic images, and what the net is fed with."""
        inputs = keras.Input((*size, self.channels), name="images")
        return inputs, self(ImageInput(1, name="image_input")(inputs))

    def __call__(self, x: Any) -> Any:
        mean, std = (np.broadcast_to(each, self.channels) for each in (self.range.mean, self.range.std))
        if self.range.reverse:
            x = ReverseChannels(name="reverse_channels")(x)
        if mean.any() or (std != 1).any():
            x = Normalize(mean.tolist(), std.tolist(), name="normalize")(x)
        return keras.layers.Permute((3, 1, 2), name="channels_first")(x) if self.first else x

    def probe(self, larger: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Random images of the net's size, or larger ones, and what the net is fed with, by a formula of its own."""
        sides = [(side or PROBE) + larger for side in self.size]
        images = np.random.default_rng(0).random((2, *sides, self.channels), "float32")
        fed = ((images[..., ::-1] if self.range.reverse else images) - self.range.mean) / self.range.std
        return images, (fed.transpose(0, 3, 1, 2) if self.first else fed).astype("float32")


# Inputs.


def _shape_of(net: keras.Layer) -> Any:
    shape = None if graph_of(net) is None else net.input_shape
    return shape if isinstance(shape, tuple) and len(shape) == 4 else None


def _is_channels_first(net: keras.Layer) -> bool:
    shape = _shape_of(net)
    if shape is None:
        return isinstance(net, keras.layers.TorchModuleWrapper)
    return shape[1] in (1, 3) and shape[3] not in (1, 3)


def _input_of(net: keras.Layer, first: bool) -> tuple[int, tuple[int | None, ...]]:
    """Number of channels, and (height, width) with None for any."""
    if graph_of(net) is None:
        return 3, (None, None)
    if len(net.inputs) != 1:  # type: ignore[attr-defined]
        raise ValueError(f"model must have one input, images; it has {len(net.inputs)}.")  # type: ignore[attr-defined]
    shape = _shape_of(net)
    if shape is None:
        raise ValueError(f"model must take images (batch, height, width, channels); it takes {net.input_shape}.")  # type: ignore[attr-defined]
    channels, *size = shape[1:] if first else (shape[3], *shape[1:3])
    return channels or 3, tuple(size)


# Heads.


def _without_activation(net: keras.Model, keep_head: bool) -> keras.Model:
    """The graph with its softmax or sigmoid taken off."""
    last = last_operation(net)
    activation = activation_of(last)
    if activation is None:
        return net
    classes = net.output_shape[-1]
    if activation == "sigmoid" and keep_head and classes != 1:
        raise ValueError(
            f"model must give one score per class, of which one is right; it ends in {classes} independent sigmoids: "
            "several may be. num_classes= gives it a new head."
        )
    own = maker_of(net, net.outputs[0])
    if changes_no_value(own):
        return _without_activation(keras.Model(net.inputs[0], own.input, name=net.name), keep_head)
    graph = graph_of(own)
    if graph is not None:
        inner = _without_activation(graph, keep_head)
        return rebuilt(net, keras.Input(net.input_shape[1:]), lambda layer: inner if layer is own else again(layer))
    if isinstance(own, keras.layers.Layer) and own.weights:
        config = {**own.get_config(), "activation": "linear", "name": f"{own.name}_logits"}
        linear = type(own).from_config(config)
        logits = linear(own.input)
        linear.set_weights(own.get_weights())
    else:
        logits = own.input
    if classes == 1 and keep_head:
        logits = ops.concatenate([ops.zeros_like(logits), logits], axis=-1)
    return keras.Model(net.inputs[0], logits, name=net.name)


def _with_head(net: keras.Model, num_classes: int, pooling: str | None) -> keras.Model:
    """The graph with a new dense layer in the place of its last one, or on top of its features."""
    outputs = net.outputs[0]
    last = maker_of(net, outputs)
    while isinstance(last, (keras.layers.Flatten, keras.layers.Reshape, keras.layers.Activation)):
        last = maker_of(net, last.input)
    one_by_one = isinstance(last, keras.layers.Conv2D) and last.kernel_size == (1, 1)
    if len(net.output_shape) == 2 and (isinstance(last, keras.layers.Dense) or one_by_one):
        outputs = last.input
    return keras.Model(net.inputs[0], _head(outputs, num_classes, pooling), name=net.name)


def _head(features: Any, num_classes: int, pooling: str | None) -> Any:
    if len(features.shape) == 4:
        kind = {None: "Average", "avg": "Average", "max": "Max"}.get(pooling)
        if kind is None:
            raise ValueError(f"pooling must be 'avg' or 'max' for feature maps; received {pooling!r}.")
        features = getattr(keras.layers, f"Global{kind}Pooling2D")(name="pool")(features)
    elif len(features.shape) == 3:
        if pooling not in ("avg", "token"):
            raise ValueError(
                f"pooling must be 'token' or 'avg' for a model whose outputs are tokens, of shape "
                f"{tuple(features.shape)}; received {pooling!r}."
            )
        features = features[:, 0] if pooling == "token" else keras.layers.GlobalAveragePooling1D(name="pool")(features)
    elif len(features.shape) != 2:
        raise ValueError(f"model must give features, maps or tokens; its outputs have shape {tuple(features.shape)}.")
    return keras.layers.Dense(num_classes, dtype="float32", name="head")(features)


# The whole.


def _of_graph(net: keras.Model, before: _Before, num_classes: int | None, pooling: str | None) -> keras.Model:
    """A copy of a net whose graph can be read."""
    bare = _without_activation(net, num_classes is None)
    if num_classes is not None:
        bare = _with_head(bare, num_classes, pooling)
    _check_scores(bare.output_shape)
    refused = []
    # A copy of open size, else one of the net's own, else the net itself, whose layers cannot be made again.
    for size, copied in (((None, None), True), (before.size, True), (before.size, False)):
        inputs, x = before.inputs(size)
        try:
            copy = rebuilt(bare, keras.Input(x.shape[1:]), again) if copied else bare
            inner = keras.Model(copy.inputs[0], copy.outputs[0], name="net")
            model = keras.Model(inputs, ops.cast(inner(x), "float32"), name=_name(net))
            _check_same(model, bare if num_classes is not None else net, before)
            if size != before.size:
                model(before.probe(larger=32)[0], training=False)
            return model
        except Exception as error:
            refused.append(" ".join(str(error).split())[:300])
    raise ValueError(f"model cannot be adapted: {refused[-1]}")


def _check_scores(shape: Sequence[int | None]) -> None:
    if len(shape) != 2:
        raise ValueError(
            f"model must return one score per class, (batch, classes); it returns {tuple(shape)}: num_classes= gives "
            "it a head."
        )


def _name(net: keras.Layer) -> str:
    return re.sub(r"[^\w.-]", "_", net.name)


def _check_same(model: keras.Model, net: keras.Model, before: _Before) -> None:
    """Refuses a copy that does not answer as the original, which may end in an activation, on random images."""
    images, fed = before.probe()
    ours = model(images, training=False)
    theirs = np.asarray(ops.convert_to_numpy(net(fed, training=False)), "float32")
    activation = activation_of(last_operation(net))
    if activation is not None:
        ours = ops.softmax(ours)
        ours = ours[:, 1:] if theirs.shape[1] == 1 else ours
    apart = float(np.abs(ops.convert_to_numpy(ours) - theirs).max())
    if not apart <= TOLERANCE * max(1.0, float(np.abs(theirs).max())):
        raise ValueError(f"its copy's outputs differ by {apart:.2g} on random images.")


def _of_layer(
    net: keras.Layer, before: _Before, num_classes: int | None, pooling: str | None, probabilities: bool
) -> keras.Model:
    """A model around a net whose inside cannot be read."""
    images, _ = before.probe()
    outputs = ops.convert_to_numpy(net(before(images), training=False))
    if isinstance(net, keras.layers.TorchModuleWrapper) and net.output_shape is None:
        net.output_shape = (None, *(outputs.shape[1:] if outputs.ndim == 2 else (outputs.shape[1], None, None)))
    if num_classes is None and is_probabilities(outputs) and not probabilities:
        raise ValueError(
            "model must return logits, not probabilities: each row of its outputs sums to 1, and a subclassed model "
            "cannot be changed from outside. Return logits from its call, or pass probabilities=True for their "
            "logarithms, whose gradients vanish where the model is certain."
        )
    inputs, x = before.inputs(before.size)
    x = net(x)
    if num_classes is not None:
        maps_first = before.first and len(x.shape) == 4
        x = keras.layers.Permute((2, 3, 1), name="channels_last")(x) if maps_first else x
        x = _head(x, num_classes, pooling)
    elif probabilities:
        x = ops.log(ops.clip(x, np.finfo("float32").tiny, 1.0))
    _check_scores(x.shape)
    return keras.Model(inputs, ops.cast(x, "float32"), name=_name(net))
