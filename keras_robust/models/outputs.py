"""Names of a model's outputs: kept in its first layer, so that they are saved and loaded with it."""

from collections.abc import Sequence
from typing import Any

from keras_robust.layers import ImageInput


def class_names(model: Any) -> tuple[str, ...] | None:
    """The names of a model's classes, in the order of its outputs; None where it does not know them.

    Models of this package keep them in their first layer (`ImageInput`); exported artefacts in their metadata. Names
    that are no more than the numbers of the outputs, which an export without names writes, count as none.

    Example:
        >>> net = kr.models.create("vit_tiny", num_classes=2, input_size=32)
        >>> kr.models.set_class_names(net, ["cat", "dog"])
        >>> kr.models.class_names(net)
        ('cat', 'dog')
    """
    layers = [layer for layer in getattr(model, "layers", ()) if isinstance(layer, ImageInput)]
    names = layers[0].class_names if layers else None
    names = names or getattr(model, "class_names", None)
    if not names or list(names) == [str(number) for number in range(len(names))]:
        return None
    return tuple(names)


def set_class_names(model: Any, names: Sequence[str]) -> None:
    """Tell a model the names of its classes, one string for each of its outputs, in their order.

    Raises:
        ValueError: another number of names than outputs, names that are no text of one line, or that repeat.
    """
    count = getattr(model, "output_shape", (None, None))[-1]
    names = check_class_names(names, count if isinstance(count, int) else len(names))
    layers = [layer for layer in model.layers if isinstance(layer, ImageInput)]
    if layers:
        layers[0].class_names = names
    else:
        model.class_names = names


def check_class_names(names: Sequence[str], count: int) -> tuple[str, ...]:
    """`count` different names of one line each, or a ValueError."""
    names = tuple(names)
    valid = all(isinstance(name, str) and name and name.isprintable() for name in names)
    if len(names) != count or not valid:
        raise ValueError(f"class_names must be {count} non-empty strings of one line each; received {names!r:.200}.")
    if len(set(names)) < count:
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"class_names must differ; these repeat: {', '.join(repeated)[:200]}.")
    return names
