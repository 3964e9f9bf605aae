"""Models with published weights, by name."""

import os
import sys
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import keras

from keras_robust import weights as weight_files
from keras_robust.checks import check_choice
from keras_robust.models.cost import parameters
from keras_robust.models.nearest import nearest
from keras_robust.models.preset_folder import is_preset_folder, load_preset
from keras_robust.models.presets import PRESETS, Preset
from keras_robust.models.registry import create, names
from keras_robust.weights.loading import TENSOR_SUFFIXES, MisfitError
from keras_robust.weights.reading import SeveralSetsError

MIRROR = "KERAS_ROBUST_WEIGHTS"
# Where RobustBench keeps its downloads below the folder that it is given.
MIRROR_FOLDERS = (".", "imagenet/Linf")
# Of files that hold several sets of weights, RobustBench takes these.
BOARDS_ENTRY = "state_dict"
SUFFIXES = (*TENSOR_SUFFIXES, ".keras", ".weights.h5")
# A file may hold averages and the optimizer's moments besides the weights, of 4 bytes each, and more.
MOST_COPIES, FREE_BYTES = 8, 64 * 2**20


def presets() -> dict[str, Preset]:
    """The published checkpoints: a dict from name to `keras_robust.models.presets.Preset`.

    Example:

    >>> row = presets()["convnext_tiny_convstem_300ep"]
    >>> row.clean, row.linf
    (72.72, 49.46)
    """
    return dict(PRESETS)


def preset_names() -> dict[str, str]:
    """All that checkpoints are called: a dict from own names and RobustBench's ids to the own names.

    Example:

    >>> preset_names()["Singh2023Revisiting_ConvNeXt-T-ConvStem"]
    'convnext_tiny_convstem_300ep'
    """
    ids = {row.robustbench: name for name, row in PRESETS.items() if row.robustbench}
    return {**{name: name for name in PRESETS}, **ids}


def preset(name: str, buildable: bool = False) -> Preset:
    """The published checkpoint called `name`, a `keras_robust.models.presets.Preset`.

    Args:
        name: one of `presets()`, or an id of RobustBench.
        buildable: whether this version must have its architecture.

    Raises:
        ValueError: there is none of that name, or its architecture is missing.
    """
    known = preset_names()
    row = PRESETS[known[check_choice("name", name, known)]]
    if buildable and row.architecture not in names():
        raise ValueError(
            f"name must be a preset whose architecture there is: {name} is a {row.architecture}, which this version "
            "does not have (keras-robust models lists those that it has)."
        )
    return row


def from_preset(
    name: str | PathLike, weights: str | PathLike | None = None, entry: str | None = None, verbose: bool = True
) -> Any:
    """Build the model of a checkpoint and load its weights.

    A published checkpoint is looked for at `weights`, in the folder that the environment variable KERAS_ROBUST_WEIGHTS
    names (a file called as the preset or as its id on RobustBench), in the cache, and else downloaded
    (`keras_robust.weights.fetch`): size, licence and source are said first. No code is run from a file.

    Args:
        name: one of `presets()`, an id of RobustBench, a folder of `save_preset`, or "hf://owner/name" for such a
            folder on the Hugging Face Hub ("hf://owner/name@revision" for one state of it).
        weights: path of the file of a published checkpoint; see `keras_robust.weights.load`.
        entry: which part of the file to read, where it holds several sets of weights; if not given, "state_dict" of the
            files on RobustBench's board, as RobustBench does.
        verbose: say what is downloaded, and how far that is.

    Returns:
        The model: images `(batch, height, width, 3)`, pixels in [0, 1], to logits `(batch, classes)`. Its attribute
        `preprocessing` is that of the published evaluation, which evaluation and export then use. A robust accuracy
        that others have undercut (`Preset.caution`) is a warning.

    Raises:
        ValueError: there is no preset of that name, or no architecture for it yet; the file is another one, and which
            weights are missing, which are surplus, and which architecture it is nearest to.
        ConnectionError: the file could not be downloaded; the message says where it is.
        ImportError: downloads need `pip install 'keras-robust[weights]'`.

    Example:

    >>> model = from_preset("Singh2023Revisiting_ConvNeXt-T-ConvStem")  # downloads 115 MB  # doctest: +SKIP
    >>> model = from_preset("convnext_tiny_convstem_300ep", weights="downloaded.pt")  # doctest: +SKIP
    """
    if is_preset_folder(name):
        if weights is not None or entry is not None:
            raise ValueError(
                f"weights and entry must be None with the folder of a preset; received {weights!r} and {entry!r}."
            )
        return load_preset(name, verbose)
    row = preset(str(name), buildable=True)
    model = create(row.architecture, input_size=row.preprocessing.resolution, normalization=row.normalization)
    path = Path(weights) if weights is not None else preset_file(str(name), verbose)
    try:
        try:
            weight_files.load(model, path, entry=entry, stated=True)
        except SeveralSetsError as error:
            if not row.robustbench or BOARDS_ENTRY not in error.entries:
                raise
            weight_files.load(model, path, entry=BOARDS_ENTRY, stated=True)
    except ValueError as error:
        raise ValueError(_misfit(str(name), row, path, error)) from error
    model.preprocessing = row.preprocessing
    if row.caution:
        warnings.warn(row.caution, stacklevel=2)
    return model


def preset_file(name: str, verbose: bool = True) -> Path:
    """The file of a published checkpoint: of the folder that KERAS_ROBUST_WEIGHTS names, or the cache, or downloaded.

    Arguments and errors are those of `from_preset`.
    """
    row, own = preset(name, buildable=True), preset_names()[name]
    return mirrored(own) or _downloaded(own, row, verbose)


def mirrored(name: str) -> Path | None:
    """The file of a preset in the folder that KERAS_ROBUST_WEIGHTS names; None where it is not there.

    Raises:
        ValueError: the variable is set to what is no folder.
    """
    mirror = os.environ.get(MIRROR)
    if not mirror:
        return None
    if not Path(mirror).is_dir():
        raise ValueError(f"{MIRROR} must be a folder of weights; received {mirror!r}.")
    stems = [stem for stem in (name, PRESETS[name].robustbench) if stem]
    places = [Path(mirror, folder, stem + suffix) for folder in MIRROR_FOLDERS for stem in stems for suffix in SUFFIXES]
    return next((place for place in places if place.is_file()), None)


def _downloaded(name: str, row: Preset, verbose: bool) -> Path:
    """The file of a preset in the cache, downloaded if need be."""
    by_hand = f"give its path as weights, or put it as {name}.pt into the folder that {MIRROR} names"
    if row.file is None:
        raise ValueError(
            f"weights must be the path of a file with the weights of {name}, which cannot be downloaded by name: "
            f"download it from {row.source} (licence: {row.licence}) and {by_hand}."
        )
    with keras.StatelessScope(initialize_variables=False):
        size = 4 * parameters(create(row.architecture))
    if verbose and not weight_files.is_cached(row.file, f"{name}.pt"):
        about = f"{size / 1e6:,.0f} MB or more from {row.file}"
        print(f"{name}: {about}; licence: {row.licence}; source: {row.source}", file=sys.stderr)
    try:
        return weight_files.fetch(row.file, row.sha256, FREE_BYTES + MOST_COPIES * size, f"{name}.pt", verbose)
    except ConnectionError as error:
        page = _page(row.file)
        raise ConnectionError(f"{error}. In a browser: {page} (linked from {row.source}); then {by_hand}") from error


def _page(address: str) -> str:
    """An address of `fetch` as a browser knows it."""
    kind, _, rest = address.partition(":")
    if kind == "gdrive":
        return f"https://drive.google.com/file/d/{rest}/view"
    if kind == "hf":
        owner, name, file = rest.removeprefix("//").split("/", 2)
        return f"https://huggingface.co/{owner}/{name}/resolve/main/{file}"
    return address


def _misfit(name: str, row: Preset, path: Any, error: ValueError) -> str:
    """All that is known of a file that is not what its preset says, as one message."""
    pixels = "raw pixels" if row.normalization is None else f"pixels normalised by {row.normalization}"
    message = f"{path} is not the file of {name}, a {row.architecture} on {pixels}: {error}"
    if isinstance(error, MisfitError):
        found = nearest(error.shapes)
        message += f". Nearest architecture: {found}" if found else ". It is near to no architecture here"
    return message
