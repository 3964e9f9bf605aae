"""What a long evaluation has found so far, on disk: one small file per batch, each replaced as a whole."""

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from keras_robust.files import write_text, written_aside

FOLDER = "state"
IMAGES = "images.npz"


class State:
    """Arrays by (resolution, batch number), kept in `out/state`, or in memory where `out` is None.

    Args:
        settings: all that decides the outcome, as JSON.
        out: folder of the report.

    Raises:
        ValueError: the folder holds the state of other settings; the message says which.
    """

    def __init__(self, settings: Mapping, out: str | PathLike | None):
        self.settings = settings
        self._images: dict[str, np.ndarray] = {}
        self._memory: dict[tuple[int, int], dict] = {}
        self._folder = None if out is None else Path(out) / FOLDER
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / "settings.json"
            if path.exists():
                check_same(settings, read_settings(path.parent), f"{path.parent} holds the state of another evaluation")
            else:
                write_text(path, json.dumps(settings, indent=2) + "\n")

    def read(self, resolution: int, batch: int) -> dict[str, np.ndarray]:
        """What is known of a batch: empty before its first attack."""
        if self._folder is None:
            return dict(self._memory.get((resolution, batch), {}))
        return read_batch(self._folder, resolution, batch)

    def write_images(self, selection) -> None:
        """Keep which images there are, so that a report can be made without the dataset."""
        self._images = {
            "index": selection.index,
            "label": selection.labels,
            "digest": selection.digests,
            "name": np.array(selection.names, dtype=str),
            "outputs": np.array(selection.outputs, dtype=str),
            "skipped": np.array(selection.skipped, dtype=str),
        }
        if self._folder is not None:
            write_arrays(self._folder / IMAGES, self._images)

    def read_images(self) -> dict[str, np.ndarray]:
        return self._images

    def write(self, resolution: int, batch: int, arrays: dict[str, np.ndarray]) -> None:
        """Replace what is known of a batch."""
        if self._folder is None:
            self._memory[resolution, batch] = dict(arrays)
            return
        write_arrays(_file(self._folder, resolution, batch), arrays)


def read_settings(folder: Path) -> dict:
    path = folder / "settings.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no state of an evaluation: there is no {path.name}.") from None
    except ValueError as error:
        raise ValueError(f"{path} is not readable ({error}): remove {folder} to start anew.") from error


def read_images(folder: Path) -> dict[str, np.ndarray]:
    return read_arrays(folder / IMAGES)


def read_batch(folder: Path, resolution: int, batch: int) -> dict[str, np.ndarray]:
    path = _file(folder, resolution, batch)
    return read_arrays(path) if path.exists() else {}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is missing or damaged ({error}): what it held must be done again.") from error


def check_same(settings: Mapping, found: Mapping, what: str) -> None:
    """Raise a ValueError that names the settings in which two evaluations differ."""
    differences = list(_differences(settings, found))
    if differences:
        raise ValueError(f"{what}: {'; '.join(differences[:5])}. Take another folder for this one, or remove that one.")


def _differences(here: Any, there: Any, where: str = "") -> Iterable[str]:
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for key in dict.fromkeys([*here, *there]):
            yield from _differences(here.get(key), there.get(key), f"{where}.{key}" if where else str(key))
    elif json.loads(json.dumps(here)) != there:
        yield f"{where} is {_short(here)} here and {_short(there)} there"


def _short(value):
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _file(folder, resolution, batch):
    return folder / f"{resolution}px-{batch:05d}.npz"


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def fingerprint(model, predictions: np.ndarray) -> str:
    """A hash of what the model computes: of its weights or, where it shows none, of its answers to the first images."""
    given = getattr(model, "sha256", None)
    if given is not None:
        return given
    digest = hashlib.sha256()
    weights = getattr(model, "weights", None)
    for value in (weights and model.get_weights()) or [np.asarray(predictions)]:
        digest.update(f"{value.shape}{value.dtype}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()
