"""PyTorch state dicts out of files, as numpy arrays."""

import json
import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

WRAPPERS = re.compile(r"((module|base_model|model|attacker|_orig_mod)\.)+")
NORMALIZATION = re.compile(r"(?:normalize|normalizer|normalization)\.(?:new_)?(mean|std)")
# Buffers that follow from the architecture, and counters of no use in inference.
DERIVED = re.compile(r"(.*\.)?(num_batches_tracked|n_averaged|relative_position_index|attn_mask)")
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


def read(path: Any, entry: Any = None) -> Any:
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


def _read_safetensors(path: Any) -> Any:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: _as_array(file.get_tensor(name)) for name in names}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a .safetensors file: {error}") from error
    return tensors, _declared(metadata.get(METADATA_KEY), path)


def _declared(text: Any, path: Any) -> Any:
    """The normalisation in the metadata of a file."""
    if text is None:
        return UNKNOWN
    try:
        value = json.loads(text)
        return value if value is None else tuple(tuple(float(x) for x in numbers) for numbers in value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} declares an unreadable normalisation: {text[:100]!r}") from error


def _read_torch(path: Any, entry: Any) -> Any:
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
    except (RuntimeError, OSError, EOFError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a PyTorch checkpoint: {error}") from error
    tensors = _choose(content, path, entry, torch.Tensor)
    odd = [name for name, tensor in tensors.items() if tensor.layout != torch.strided or tensor.is_quantized]
    if odd:
        raise ValueError(f"{path} holds sparse or quantised tensors: {', '.join(odd[:10])}")
    return {name: _as_array(tensor.detach()) for name, tensor in tensors.items()}


def _choose(content: Any, path: Any, entry: Any, tensor_type: Any) -> Any:
    """The state dict in what `torch.load` returned."""

    def is_state_dict(value: Any) -> Any:
        return (
            isinstance(value, Mapping)
            and len(value) > 0
            and all(isinstance(name, str) and isinstance(item, tensor_type) for name, item in value.items())
        )

    def state_dicts(content: Any, prefix: str = "") -> Iterator[Any]:
        """The state dicts in nested dicts, by the names that lead to them, joined by dots."""
        for name, value in content.items() if isinstance(content, Mapping) else ():
            if is_state_dict(value):
                yield f"{prefix}{name}", value
            elif isinstance(name, str) and not name.startswith("optim"):
                yield from state_dicts(value, f"{prefix}{name}.")

    if entry is None and is_state_dict(content):
        return content
    entries = dict(state_dicts(content))
    if entry is not None:
        if entry not in entries:
            raise ValueError(f"entry must be one of {list(entries)} for {path}, received {entry!r}")
        return entries[entry]
    if len(entries) > 1:
        raise ValueError(f"{path} holds several sets of weights: choose one by entry=, accepted are {list(entries)}")
    if not entries:
        raise ValueError(f"{path} holds no state dict: neither is it a dict of tensors, nor is one of its entries")
    return next(iter(entries.values()))


def _as_array(tensor: Any) -> Any:
    """Floating-point tensors as float32 arrays, others as they are."""
    if not isinstance(tensor, np.ndarray):
        tensor = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    # The numpy types of 16-bit floats outside IEEE are of kind "V".
    return tensor.astype("float32", copy=False) if tensor.dtype.kind in "fV" else tensor


def _unwrap(tensors: Any, declared: Any, path: Any) -> Any:
    plain: dict[str, Any] = {}
    normalization: dict[str, Any] = {}
    for name, tensor in tensors.items():
        name = name.removeprefix(match[0]) if (match := WRAPPERS.match(name)) else name
        if DERIVED.fullmatch(name):
            continue
        target = plain
        if match := NORMALIZATION.fullmatch(name):
            if tensor.size not in (1, 3):
                raise ValueError(f"{path} holds a normalisation of {tensor.size} channels ({name}), 3 are expected")
            target, name, tensor = normalization, match[1], np.broadcast_to(tensor.reshape(-1), 3)
        if name in target and not np.array_equal(target[name], tensor):
            raise ValueError(f"{path} holds two different tensors called {name} once wrappers' names are stripped")
        target[name] = tensor
    if normalization.keys() == {"mean", "std"}:
        declared = tuple(tuple(normalization[key].tolist()) for key in ("mean", "std"))
    return StateDict(plain, declared)
