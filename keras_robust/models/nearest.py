"""The architecture that the weights in a file fit best."""

from collections.abc import Mapping

import keras

from keras_robust.models.registry import create, names
from keras_robust.weights.loading import fitting

LEAST = 0.3  # share of weights in common below which a file is near to nothing


def nearest(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The architectures nearest to a file, with how many of its arrays fit, in words; None where none is near.

    All architectures are built without values, which takes seconds.

    Args:
        shapes: of the arrays in the file, by their names in PyTorch or Keras.

    Example:

    >>> net = kr.models.create("vit_tiny", num_classes=10)
    >>> nearest({variable.path: tuple(variable.shape) for variable in net.weights})
    "vit_tiny, which has 151 of the file's 153 arrays"
    """
    scores: dict[str, float] = {}
    counts: dict[str, int] = {}
    for name in names():
        with keras.StatelessScope(initialize_variables=False):
            wanted = {variable.path: tuple(variable.shape) for variable in create(name).weights}
        counts[name] = fitting(wanted, shapes)
        scores[name] = 2 * counts[name] / (len(wanted) + len(shapes))
    best = max(scores.values(), default=0.0)
    if best < LEAST:
        return None
    found = [name for name, score in scores.items() if score == best]
    return f"{' or '.join(found)}, which has {counts[found[0]]:,} of the file's {len(shapes):,} arrays"
