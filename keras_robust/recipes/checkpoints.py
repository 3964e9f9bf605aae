"""Checkpoints of a training run: all that it needs to go on as if nothing had happened, in one file each.

A file is a `.safetensors` of the variables, which is read without running code from it. Its metadata hold, as JSON,
format, step, metrics, and a SHA-256 over names, types, shapes and bytes of all arrays. It is written under another
name, flushed to the disk and renamed, so that a file of the right name is a whole one.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
from keras import ops
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from keras_robust.checks import check_count
from keras_robust.files import written_aside

FORMAT = "keras_robust checkpoint 3"
HEADER = "checkpoint"  # key of the metadata
SUFFIX = ".safetensors"
NAME = re.compile(rf"step-(\d{{9}})\{SUFFIX}")


class CheckpointError(Exception):
    """A checkpoint that cannot be read, is damaged, or belongs to another run; or one that could not be written."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file by what it says of itself.

    Attributes:
        path: the file.
        step: updates of the weights so far (micro-batches, with gradient accumulation).
        info: whatever else the run noted, JSON: metrics, fingerprint of the recipe, ...
    """

    path: Path
    step: int
    info: dict[str, Any] = field(default_factory=dict)


def variables_of(trainer: keras.Model) -> dict[str, keras.Variable]:
    """The state of a compiled trainer by unique names: weights, averages, counters, seeds, metrics, optimizer."""
    if not trainer.optimizer.built:
        trainer.optimizer.build(trainer.trainable_variables)
    named = {}
    for part, variables in (("model", trainer.variables), ("optimizer", trainer.optimizer.variables)):
        for i, variable in enumerate(variables):
            named[f"{part}/{i:05d}/{variable.path}"] = variable
    return named


def write(path: str | PathLike, arrays: Mapping[str, np.ndarray], step: int, info: Mapping[str, Any]) -> None:
    """Writes one checkpoint, atomically.

    Args:
        path: of the file, below an existing folder.
        arrays: dict of numpy arrays by name.
        step, info: see `Checkpoint`.

    Raises:
        CheckpointError: the disk is full, or the file cannot be written for another reason; what was there before is
            as it was.
    """
    path = Path(path)
    header = {"format": FORMAT, "step": int(step), "sha256": _digest(arrays), "dtypes": _dtypes(arrays), "info": info}
    plain = {name: np.ascontiguousarray(_plain(array)).reshape(array.shape) for name, array in arrays.items()}
    try:
        with written_aside(path) as aside:
            save_file(plain, aside, metadata={HEADER: json.dumps(header)})
        _flush_folder(path.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"checkpoint {path} could not be written: {reason}. Earlier checkpoints are untouched; "
            "free some space (or lower checkpoints.keep_last) and start the same command again."
        ) from error


def peek(path: str | PathLike) -> Checkpoint:
    """The `Checkpoint` that a file says it is, without reading its arrays.

    Raises:
        CheckpointError: the file is no checkpoint, or is cut short.
    """
    header = _header(path)
    return Checkpoint(Path(path), header["step"], header["info"])


def read(path: str | PathLike) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint, by name, once their checksum is right.

    Raises:
        CheckpointError: the file is no checkpoint, is cut short, or its contents are not what was written.
    """
    header = _header(path)
    try:
        arrays = load_file(path)
        arrays = {
            name: array.view(_dtype(header["dtypes"].get(name, array.dtype.name))) for name, array in arrays.items()
        }
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if _digest(arrays) != header["sha256"]:
        raise CheckpointError(f"{path} is damaged: its checksum is not that of its arrays.")
    return arrays


def restore(trainer: keras.Model, arrays: Mapping[str, np.ndarray], path: str | PathLike = "the checkpoint") -> None:
    """Assigns arrays to the variables of a compiled trainer, all of them or none.

    Raises:
        CheckpointError: the trainer has other variables than the arrays: it is another model or another recipe.
    """
    variables = variables_of(trainer)
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    saved = {name: array.shape for name, array in arrays.items()}
    # Behind its place, the path of a variable may hold a counter of the session that it was made in.
    places = {_place(name): name for name in variables}
    if {_place(name): shape for name, shape in saved.items()} != {_place(n): shape for n, shape in shapes.items()}:
        raise CheckpointError(
            f"{path} is of another model or optimizer: it holds {len(saved)} variables, this run has {len(shapes)}, "
            f"and {len(set(saved.items()) ^ set(shapes.items()))} differ in name or shape."
        )
    for name, array in arrays.items():
        variables[places[_place(name)]].assign(array)


def capture(trainer: keras.Model) -> dict[str, np.ndarray]:
    """The state of a compiled trainer as numpy arrays."""
    if keras.backend.backend() == "jax":
        trainer.jax_state_sync()
    return {name: np.array(ops.convert_to_numpy(variable)) for name, variable in variables_of(trainer).items()}


def metrics_of(trainer: keras.Model) -> dict[str, list[Any]]:
    """What the metrics of a trainer have gathered in this epoch, by name, for JSON; to be called after `capture`."""
    return {
        metric.name: [ops.convert_to_numpy(variable).tolist() for variable in metric.variables]
        for metric in trainer.metrics
    }


def set_metrics(trainer: keras.Model, values: Mapping[str, Sequence[Any]]) -> None:
    """Gives the metrics of a trainer what `metrics_of` has found; some are made by the first validation only."""
    for metric in trainer.metrics:
        for variable, value in zip(metric.variables, values.get(metric.name, ())):
            variable.assign(np.asarray(value, variable.dtype))


def not_finite(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The names of the float arrays that hold NaN or infinity."""
    floats = {name: array for name, array in arrays.items() if array.dtype.kind == "f" and "metric" not in name}
    return [name for name, array in floats.items() if not np.isfinite(array).all()]


class CheckpointFolder:
    """The checkpoints of one run: `step-000000120.safetensors`, ...; the last ones and the best are kept.

    Args:
        path: the folder; it is made when the first checkpoint is written.
        keep_last: how many of the latest to keep.
        keep_best: how many of those of the highest `info["score"]` to keep besides.

    Example:
        >>> folder = CheckpointFolder("runs/1/checkpoints")
        >>> folder.save({"weight": np.ones(3)}, step=120, info={"score": 0.41})
        >>> checkpoint, arrays = folder.latest()
        >>> checkpoint.step, arrays["weight"]
        (120, array([1., 1., 1.]))
    """

    def __init__(self, path: str | PathLike, keep_last: int = 2, keep_best: int = 1) -> None:
        self.path = Path(path)
        self.keep_last = check_count("keep_last", keep_last)
        self.keep_best = check_count("keep_best", keep_best, least=0)

    def save(self, arrays: Mapping[str, np.ndarray], step: int, info: Mapping[str, Any]) -> None:
        """Writes a checkpoint, then deletes those that need not be kept.

        Raises:
            CheckpointError: it could not be written; the others are untouched.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be made: {error.strerror or error}.") from error
        write(self.path / f"step-{step:09d}{SUFFIX}", arrays, step, info)
        kept = {checkpoint.path for checkpoint in self._kept()}
        for path in self._files():
            if path not in kept:
                path.unlink(missing_ok=True)

    def readable(self, warn: Callable[[str], None] = lambda message: None) -> list[Checkpoint]:
        """The checkpoints, the latest first; what is no whole checkpoint is passed over with a warning."""
        found = []
        for path in self._files():
            try:
                found.append(peek(path))
            except CheckpointError as error:
                warn(str(error))
        return found

    def latest(
        self,
        accept: Callable[[Checkpoint], bool] = lambda checkpoint: True,
        warn: Callable[[str], None] = lambda message: None,
    ) -> tuple[Checkpoint, dict[str, np.ndarray]] | None:
        """The latest sound checkpoint that `accept` takes, and its arrays; None where there is none."""
        for checkpoint in self.readable(warn):
            if not accept(checkpoint):
                continue
            try:
                return checkpoint, read(checkpoint.path)
            except CheckpointError as error:
                warn(f"{error} An earlier checkpoint is used.")
        return None

    def best(self) -> Checkpoint | None:
        """The checkpoint of the highest score, the latest of them; None where none has a score."""
        scored = [checkpoint for checkpoint in self.readable() if checkpoint.info.get("score") is not None]
        return max(scored, key=lambda checkpoint: (checkpoint.info["score"], checkpoint.step), default=None)

    def _files(self) -> list[Path]:
        """Newest first."""
        if not self.path.is_dir():
            return []
        return sorted((path for path in self.path.iterdir() if NAME.fullmatch(path.name)), reverse=True)

    def _kept(self) -> list[Checkpoint]:
        found = self.readable()
        scored = [checkpoint for checkpoint in found if checkpoint.info.get("score") is not None]
        best = sorted(scored, key=lambda checkpoint: (checkpoint.info["score"], checkpoint.step), reverse=True)
        return [*found[: self.keep_last], *best[: self.keep_best]]


def _header(path: str | PathLike) -> dict[str, Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[HEADER])
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is cut short, or no checkpoint of keras_robust: {error}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of this version of keras_robust ({FORMAT!r}).")
    return header


def _place(name: str) -> str:
    return "/".join(name.split("/")[:2])


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.name} {arrays[name].shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _foreign(array: np.ndarray) -> bool:
    """Whether numpy's file format has no name for the type of an array: bfloat16, say."""
    return array.dtype.kind == "V"


def _dtypes(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {name: array.dtype.name for name, array in arrays.items() if _foreign(array)}


def _plain(array: np.ndarray) -> np.ndarray:
    return array.view(f"u{array.dtype.itemsize}") if _foreign(array) else array


def _dtype(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


def _flush_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows flushes with the file
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
