"""Models with published weights."""

from typing import Any

from keras_robust import weights as weight_files
from keras_robust.checks import check_choice
from keras_robust.models.presets import PRESETS, Preset
from keras_robust.models.registry import create


def presets() -> dict[str, Preset]:
    """The published checkpoints: a dict from name to `keras_robust.models.presets.Preset`.

    Example:

    >>> row = presets()["convnext_tiny_convstem_300ep"]
    >>> row.clean, row.linf
    (72.72, 49.46)
    """
    return dict(PRESETS)


def preset(name: str) -> Preset:
    """The published checkpoint called `name`, a `keras_robust.models.presets.Preset`.

    Raises:
        ValueError: there is none of that name.
    """
    return PRESETS[check_choice("name", name, PRESETS)]


def from_preset(name: str, weights: str | None = None) -> Any:
    """Build the model of a published checkpoint and load its weights.

    Nothing is downloaded: get the file yourself from the preset's `source` and mind its licence.

    Args:
        name: one of `presets()`.
        weights: path of the file; see `keras_robust.weights.load`.

    Returns:
        The model: images `(batch, height, width, 3)`, pixels in [0, 1], to logits `(batch, 1000)`. Its attribute
        `preprocessing` is that of the published evaluation, which `kr.evaluation.evaluate` then uses.

    Raises:
        ValueError: there is no preset of that name; `weights` is None; the file does not fit.

    Example:

    >>> model = from_preset(  # a file to download  # doctest: +SKIP
    ...     "convnext_tiny_convstem_300ep", weights="convnext_tiny_cvst_robust.pt"
    ... )
    """
    row = preset(name)
    if weights is None:
        raise ValueError(
            f"weights must be the path of a file with the weights of {name}, received None. Nothing is downloaded: "
            f"see {row.source} (licence: {row.licence})"
        )
    model = create(row.architecture, input_size=row.resolution, normalization=row.normalization)
    weight_files.load(model, weights, stated=True)
    model.preprocessing = row.preprocessing
    return model
