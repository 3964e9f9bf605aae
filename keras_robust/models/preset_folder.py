"""Presets of one's own: a folder with a model and all that is known about it, here or on the Hugging Face Hub."""

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_robust import weights as weight_files
from keras_robust.files import read_file
from keras_robust.models.cost import parameters
from keras_robust.models.outputs import class_names as names_of
from keras_robust.models.outputs import set_class_names
from keras_robust.models.preset_record import PresetRecord, card
from keras_robust.models.presets import Preprocessing
from keras_robust.precision import as_float32
from keras_robust.robustness import robustness_rows
from keras_robust.threat import ThreatModel
from keras_robust.versions import installed_versions
from keras_robust.weights import keras_archive
from keras_robust.weights.loading import architecture_name

MODEL, RECORD, CARD = "model.keras", "preset.json", "README.md"
FILES = (MODEL, RECORD, CARD)
MOST_RECORD_BYTES = 16 * 2**20
DATASET = re.compile(r"([\w.-]+/)?[\w.-]+")
HUB = re.compile(r"hf://([\w.-]+/[\w.-]+)(@[^/@]+)?")
PACKAGES = ("keras-robust", "keras")


def save_preset(
    model: keras.Model,
    folder: str | PathLike,
    *,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    threat: ThreatModel | None = None,
    report: Any = None,
    licence: str | None = None,
    source: str | None = None,
    datasets: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write a model with all that is known about it into a folder: `from_preset` takes it, `upload_preset` uploads it.

    The folder holds `model.keras` (weights and configuration, in float32), `preset.json` (the rest) and `README.md`, a
    model card with the Hub's metadata. It is written aside, loaded again, compared weight by weight and then renamed.

    Args:
        model: of this package, or adapted (`keras_robust.adapt`), or a trainer's.
        folder: where to; it must be new, or a preset's with `overwrite`.
        preprocessing: of its evaluation, a `kr.models.Preprocessing`; if not given, the one that the model knows.
        class_names: of its outputs; if not given, those that it knows.
        threat: a `ThreatModel`, of the training.
        report: its robustness: a `kr.evaluation.Report`, or the path of its report.json.
        licence: of the weights, by its SPDX name as "Apache-2.0".
        source: address of what they were made from, or of their description.
        datasets: what it was trained on, by the Hub's names as "imagenet-1k" or "owner/name".
        overwrite: replace a preset at `folder`.

    Returns:
        The folder.

    Raises:
        ValueError: an argument is not as described; the model does not load again as it was.

    Example:

    >>> net = kr.models.create("vit_tiny", num_classes=2, input_size=32)
    >>> preprocessing = kr.models.Preprocessing(resolution=32, crop_pct=1.0, interpolation="bicubic")
    >>> folder = kr.models.save_preset(net, "mine", preprocessing=preprocessing, class_names=["cat", "dog"])
    >>> kr.models.class_names(kr.models.from_preset(folder))
    ('cat', 'dog')
    """
    folder = Path(folder)
    if folder.exists() and not (overwrite and (folder / RECORD).is_file()):
        raise ValueError(f"folder must be new, or a preset's with overwrite=True; there is already {str(folder)!r}.")
    inner = getattr(model, "model", None)
    model = inner if isinstance(inner, keras.Model) else model
    if not isinstance(model, keras.Model):
        raise ValueError(f"model must be a keras.Model; received {type(model).__name__}.")
    known: Any = getattr(model, "preprocessing", None) if preprocessing is None else preprocessing
    if not all(hasattr(known, name) for name in ("resolution", "crop_pct", "interpolation")):
        raise ValueError(
            "preprocessing must be a kr.models.Preprocessing(resolution, crop_pct, interpolation), as this model does "
            f"not know its own; received {preprocessing!r}."
        )
    if threat is not None and not isinstance(threat, ThreatModel):
        raise ValueError(f"threat must be a ThreatModel; received {threat!r}.")
    if isinstance(datasets, str) or not all(isinstance(name, str) and DATASET.fullmatch(name) for name in datasets):
        raise ValueError(f"datasets must be names on the Hub, as ('imagenet-1k',); received {datasets!r}.")
    kept = as_float32(model)
    kept = keras.models.clone_model(kept) if kept is model and class_names is not None else kept
    kept.set_weights(model.get_weights())
    if class_names is not None:
        set_class_names(kept, class_names)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as aside:
        place = Path(aside) / folder.name
        place.mkdir()
        kept.save(place / MODEL)
        _check_written(kept, place / MODEL)
        record = PresetRecord(
            name=model.name,
            architecture=architecture_name(model),
            parameters=parameters(model),
            sha256=weight_files.sha256_of(place / MODEL),
            size=(place / MODEL).stat().st_size,
            preprocessing=Preprocessing(known.resolution, known.crop_pct, known.interpolation),
            class_names=names_of(kept),
            threat=threat,
            evaluation=robustness_rows(report),
            licence=licence,
            source=source,
            datasets=tuple(datasets),
            versions={**installed_versions(PACKAGES), "backend": keras.backend.backend()},
        )
        (place / RECORD).write_text(record.to_json(), encoding="utf-8")
        (place / CARD).write_text(card(record), encoding="utf-8")
        if folder.exists():
            os.rename(folder, Path(aside) / "old")
        os.rename(place, folder)
    return folder


def upload_preset(folder: str | PathLike, address: str, private: bool = True) -> str:
    """Upload a folder of `save_preset` to the Hugging Face Hub, with the user's own token (`hf auth login`).

    Args:
        folder: of a preset.
        address: "hf://owner/name"; the repository is created where there is none.
        private: whether a new repository is.

    Returns:
        The address of the repository, for a browser.

    Raises:
        ValueError: an argument is not as described; the model is not the one that was saved.
        ConnectionError: the Hub refused, with its reason.
        ImportError: huggingface_hub is not installed.
    """
    match = HUB.fullmatch(str(address))
    if match is None or match[2]:
        raise ValueError(f"address must be hf://owner/name; received {address!r}.")
    folder = Path(folder)
    _check_model_file(folder / MODEL, _record_in(folder))
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError("uploads need huggingface_hub: pip install 'keras-robust[weights]'") from error
    hub = huggingface_hub.HfApi()
    try:
        url = hub.create_repo(match[1], private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=match[1],
            folder_path=folder,
            allow_patterns=list(FILES),
            commit_message="Upload of a keras_robust preset",
        )
    except Exception as error:  # of the library, or of what it is built on
        reason = " ".join(f"{error} {error.__cause__ or ''}".split())[:500]
        raise ConnectionError(f"{address} was not uploaded: {reason}") from error
    return str(url)


def is_preset_folder(name: Any) -> bool:
    """Whether `name` is the folder of a preset, here or on the Hub."""
    return str(name).startswith("hf://") or (Path(name) / RECORD).is_file()


def load_preset(folder: str | PathLike, verbose: bool = True) -> keras.Model:
    """The model in a folder of `save_preset`, or in one on the Hub; see `from_preset`."""
    if not str(folder).startswith("hf://"):
        record, path = _record_in(Path(folder)), Path(folder) / MODEL
        _check_model_file(path, record)
    else:
        if not HUB.fullmatch(str(folder)):
            raise ValueError(f"name must be hf://owner/name or hf://owner/name@revision; received {str(folder)!r}.")
        place = weight_files.fetch(f"{folder}/{RECORD}", most=MOST_RECORD_BYTES, verbose=False)
        record = PresetRecord.of_json(place.read_bytes(), f"{folder}/{RECORD}")
        address = f"{folder}/{MODEL}"
        if verbose and not weight_files.is_cached(address):
            licence = record.licence or "not stated"
            print(f"{record.name}: {record.size / 1e6:,.1f} MB from {folder}; licence: {licence}", file=sys.stderr)
        try:
            path = weight_files.fetch(address, record.sha256, record.size, verbose=verbose)
        except ValueError as error:
            raise ValueError(f"{error}. If the preset has a new version, remove {place}, its old record") from error
    model = keras_archive.load(path)
    if record.class_names is not None:
        set_class_names(model, record.class_names)
    model.preprocessing = record.preprocessing
    return model


def _record_in(folder: Path) -> PresetRecord:
    if not (folder / RECORD).is_file():
        raise ValueError(f"folder must be that of a preset, with a {RECORD}; received {str(folder)!r}.")
    return PresetRecord.of_json(read_file(folder / RECORD, MOST_RECORD_BYTES), str(folder / RECORD))


def _check_model_file(path: Path, record: PresetRecord) -> None:
    if not path.is_file():
        raise ValueError(f"folder must hold the {MODEL} that its {RECORD} describes; there is no file {path}")
    found = weight_files.sha256_of(path)
    if found != record.sha256:
        raise ValueError(f"{path} is not the file that was saved: its SHA-256 is {found}, expected is {record.sha256}")


def _check_written(model: keras.Model, path: Path) -> None:
    """Refuses a file that does not give the model back, weight by weight."""
    loaded = keras_archive.load(path)
    pairs = list(zip(model.get_weights(), loaded.get_weights(), strict=True))
    if not all(np.array_equal(one, two, equal_nan=True) for one, two in pairs):
        raise ValueError(f"model must load again as it was saved; {model.name} has other weights then.")
