"""PyTorch state dicts out of files, as numpy arrays."""

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WRAPPERS = re.compile(r"((module|base_model|model|attacker|_orig_mod)\.)+")
NORMALIZATION = re.compile(r"(?:normalize|normalizer|normalization)\.(?:new_)?(mean|std)")
# Buffers that follow from the architecture, and counters of no use in inference.
DERIVED = re.compile(r"(.*\.)?(num_batches_tracked|relative_position_index|attn_mask)")
# In the metadata of the .safetensors files that `save` writes.
METADATA_KEY = "keras_robust.normalization"


@dataclass(frozen=True)
class StateDict:
    """The weights in a file.

    Attributes:
        tensors: float32 arrays by name, without the names of wrappers around the model.
        normalization: `(mean, std)`, None if the model takes raw pixels, or `UNKNOWN`.
    """

    tensors: dict[str, np.ndarray]
    normalization: object


UNKNOWN = object()


def read(path, entry=None):
    """The `StateDict` in a .safetensors, .pt, .pth or .tar file.

    Args:
        path: the file.
        entry: name of the part of a .pt, .pth or .tar file that holds the weights, where there are several.

    Raises:
        ValueError: the file is of another kind, needs arbitrary code to be read, or holds no weights, or several
            sets of them and `entry` does not say which.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        if entry is not None:
            raise ValueError(f"entry must be None for a .safetensors file, received {entry!r}")
        tensors, declared = _read_safetensors(path)
    else:
        tensors, declared = _read_torch(path, entry), UNKNOWN
    return _unwrap(tensors, declared, path)


def _read_safetensors(path):
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: _as_float32(file.get_tensor(name)) for name in names}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a .safetensors file: {error}") from error
    declared = metadata.get(METADATA_KEY)
    return tensors, UNKNOWN if declared is None else json.loads(declared)


def _read_torch(path, entry):
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"reading {path} needs PyTorch (pip install torch); .safetensors files do not") from error
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} holds more than tensors, and reading it could run arbitrary code, so it is refused. If you trust "
            "its author, load it in PyTorch with weights_only=False, take the state dict out and save that alone. "
            f"({reason})"
        ) from error
    except (RuntimeError, EOFError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a PyTorch checkpoint: {error}") from error
    tensors = _choose(content, path, entry, torch.Tensor)
    return {name: _as_float32(tensor.detach()) for name, tensor in tensors.items()}


def _choose(content, path, entry, tensor_type):
    """The state dict in what `torch.load` returned."""

    def is_state_dict(value):
        return (
            isinstance(value, Mapping)
            and len(value) > 0
            and all(isinstance(name, str) and isinstance(item, tensor_type) for name, item in value.items())
        )

    if entry is None and is_state_dict(content):
        return content
    entries = {k: v for k, v in content.items() if is_state_dict(v)} if isinstance(content, Mapping) else {}
    if entry is not None:
        if entry not in entries:
            raise ValueError(f"entry must be one of {list(entries)} for {path}, received {entry!r}")
        return entries[entry]
    if len(entries) > 1:
        raise ValueError(f"{path} holds several sets of weights: choose one by entry=, accepted are {list(entries)}")
    if not entries:
        raise ValueError(f"{path} holds no state dict: neither is it a dict of tensors, nor is one of its entries")
    return next(iter(entries.values()))


def _as_float32(tensor):
    if not isinstance(tensor, np.ndarray):
        tensor = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return tensor if np.issubdtype(tensor.dtype, np.integer) else tensor.astype("float32", copy=False)


def _unwrap(tensors, declared, path):
    plain, normalization = {}, {}
    for name, tensor in tensors.items():
        name = name.removeprefix(match[0]) if (match := WRAPPERS.match(name)) else name
        if DERIVED.fullmatch(name):
            continue
        target = plain
        if match := NORMALIZATION.fullmatch(name):
            target, name, tensor = normalization, match[1], tensor.reshape(-1)
        if name in target and not np.array_equal(target[name], tensor):
            raise ValueError(f"{path} holds two different tensors called {name} once wrappers' names are stripped")
        target[name] = tensor
    if normalization.keys() == {"mean", "std"}:
        declared = tuple(tuple(normalization[key].tolist()) for key in ("mean", "std"))
    return StateDict(plain, declared)
