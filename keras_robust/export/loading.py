"""Loading of models to evaluate: whatever a user may name, a file, a folder, a preset, an architecture."""

from os import PathLike
from pathlib import Path
from typing import Any

from keras_robust import models, weights
from keras_robust.checks import did_you_mean
from keras_robust.export.formats import FORMATS
from keras_robust.files import DAMAGE


def load_model(
    model: Any,
    path: str | PathLike | None = None,
    num_classes: int = 1000,
    input_size: int = 224,
    normalization: tuple | None = None,
    pixels: str | None = None,
) -> Any:
    """A model from what a user may name.

    Args:
        model: a model or other callable, which is returned; the path of a file in one of `FORMATS`; the name of a
            preset, its id on RobustBench, a folder of `save_preset` or "hf://owner/name" (see
            `keras_robust.models.from_preset`); the name of an architecture, with weights at `path`;
            "applications:NAME", of `keras.applications`, or "hub:PRESET", an image classifier of KerasHub, with the
            weights at `path` or those that these libraries download.
        path: weights for an architecture, or for a preset that is not to be downloaded; see
            `keras_robust.weights.load`.
        num_classes, input_size, normalization: of an architecture; see `keras_robust.models.create`.
        pixels: what a file of other origin takes: see `keras_robust.adapt`. Needed for those that this package did not
            export, but for `.keras` files that tell it.

    Raises:
        ValueError: there is no such model, it cannot be read, or its weights are missing.

    Example:
        >>> model.save("robust.keras")
        >>> load_model("robust.keras").name
        'small'
        >>> model = load_model(  # a file to download  # doctest: +SKIP
        ...     "convnext_tiny_convstem_300ep", "convnext_tiny_cvst_robust.pt"
        ... )
    """
    if not isinstance(model, (str, PathLike)):
        if not callable(model):
            raise ValueError(f"model must be a callable from images to logits, a path or a name; received {model!r}.")
        return model
    model = str(model)
    path_of_model = Path(model)
    for row in FORMATS.values():
        if row.artefact.is_at(path_of_model):
            try:
                return row.load(path_of_model, pixels)
            except DAMAGE as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(f"{model} cannot be read as {row.described}: {reason}") from error
        if row.suffix and path_of_model.suffix == row.suffix:
            raise ValueError(f"model: there is no file {model}")
    if pixels is not None:
        raise ValueError(f"pixels is for files of other origin; received {pixels!r} for {model}.")
    if models.is_foreign(model):
        built = models.adapted(model, pretrained=path is None)
        if path is not None:
            weights.load(built, path)
        return built
    if model in models.preset_names() or models.is_preset_folder(model):
        return models.from_preset(model, path)
    if model in models.names():
        if path is None:
            raise ValueError(f"weights must be given for the architecture {model!r}: random ones tell nothing.")
        built = models.create(model, num_classes, input_size, normalization=normalization)
        weights.load(built, path)
        return built
    accepted = ", ".join(row.described for row in FORMATS.values())
    raise ValueError(
        f"model must be {accepted}, the name of a preset (kr.models.presets()), its id on RobustBench, "
        "hf://owner/name, the name of an architecture (kr.models.names()) with weights, applications:NAME or "
        f"hub:PRESET; received {model!r}.{did_you_mean(model, [*models.preset_names(), *models.names()])}"
    )
