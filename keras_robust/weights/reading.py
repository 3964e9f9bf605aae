"""PyTorch state dicts out of files, as numpy arrays."""

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_robust.files import DAMAGE, check_unpacked_sizes, read_json

Rename = Mapping[str, str] | Callable[[str], str | None]

# What stands before the names of a model inside of others, and what compilers and sharding put into the midst of names.
WRAPPERS = re.compile(r"((module|base_model|model|attacker|net|network|backbone)\.)+")
INSIDE = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
NORMALIZATION = re.compile(
    r"(?:(?:normalize|normalizer|normalization|normalise|preprocess|0)\.)?(?:new_|input_)?(mean|std|mu|sigma)"
)
NUMBERS = {"mu": "mean", "sigma": "std"}
# Parts of a sequence of normalisation and net.
IN_SEQUENCE = re.compile(r"1\.")
MAX_NESTING = 16
TORCH_SUFFIXES = (".pt", ".pth", ".tar", ".ckpt", ".bin")
INDEX = ".index.json"
# Buffers that follow from the architecture, and counters of no use in inference.
DERIVED = re.compile(r"(.*\.)?(num_batches_tracked|n_averaged|relative_position_index|attn_mask)")
# In the metadata of the .safetensors files that `save` writes.
METADATA_KEY, ARCHITECTURE_KEY = "keras_robust.normalization", "keras_robust.architecture"


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


class SeveralSetsError(ValueError):
    """A file of several sets of weights, of which none was chosen.

    Attributes:
        entries: what they are called.
    """

    def __init__(self, message: str, entries: tuple[str, ...]) -> None:
        super().__init__(message)
        self.entries = entries


def read(path: Any, entry: Any = None, rename: Rename | None = None) -> StateDict:
    """The `StateDict` in a .safetensors file, in one of PyTorch, or in the files that an .index.json lists.

    Args:
        path: the file.
        entry: name of the part of a file of PyTorch that holds the weights, where there are several.
        rename: from the file's names to others; see `keras_robust.weights.load`.

    Raises:
        ValueError: the file is of another kind, needs arbitrary code to be read, or holds no weights, or several
            sets of them and `entry` does not say which.
    """
    path = Path(path)
    if path.name.endswith(INDEX):
        tensors, declared = _read_shards(path, entry)
    else:
        tensors, declared = _read_one(path, entry)
    return _unwrap(_renamed(tensors, rename), declared, path)


def _read_one(path: Path, entry: Any) -> Any:
    if path.suffix == ".safetensors":
        if entry is not None:
            raise ValueError(f"entry must be None for a .safetensors file, received {entry!r}")
        return _read_safetensors(path)
    return _read_torch(path, entry), UNKNOWN


def _read_shards(path: Path, entry: Any) -> Any:
    """The tensors of all files that an index lists, which lie beside it."""
    try:
        places = read_json(path)["weight_map"]
        names = sorted(set(places.values()), key=str)
    except DAMAGE as error:
        raise ValueError(f"{path} is not an index of weights: {str(error) or type(error).__name__}") from error
    tensors: dict[str, np.ndarray] = {}
    for name in names:
        if (
            not isinstance(name, str)
            or Path(name).name != name
            or Path(name).suffix not in (".safetensors", *TORCH_SUFFIXES)
        ):
            raise ValueError(f"{path} must list files of weights beside it; received {name!r}")
        shard = path.with_name(name)
        if not shard.is_file():
            raise FileNotFoundError(f"there is no file {shard}, which {path.name} lists")
        held, _ = _read_one(shard, entry)
        if held.keys() & tensors.keys():
            twice = sorted(held.keys() & tensors.keys())
            raise ValueError(f"{path} lists files that hold the same tensors: {', '.join(twice[:5])}")
        tensors |= held
    if tensors.keys() != places.keys():
        odd = sorted(tensors.keys() ^ places.keys())
        raise ValueError(f"{path} and its files differ in {len(odd)} tensors: {', '.join(odd[:5])}")
    return tensors, UNKNOWN


def _renamed(tensors: Mapping[str, np.ndarray], rename: Rename | None) -> dict[str, np.ndarray]:
    if rename is None:
        return dict(tensors)
    found: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        if callable(rename):
            new = rename(name)
        else:
            new = next((to + name[len(old) :] for old, to in rename.items() if name.startswith(old)), name)
        if new is None:
            continue
        if new in found:
            raise ValueError(f"rename must keep names apart; two tensors become {new!r}")
        found[new] = tensor
    return found


def _read_safetensors(path: Any) -> Any:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: _as_array(file.get_tensor(name)) for name in names}
    except (safetensors.SafetensorError, *DAMAGE) as error:
        raise ValueError(f"{path} is not a .safetensors file: {str(error) or type(error).__name__}") from error
    return tensors, _declared(metadata.get(METADATA_KEY), path)


def declared_architecture(path: Path) -> str | None:
    """The architecture that a file of `save` names; None of other files."""
    if path.suffix != ".safetensors":
        return None
    import safetensors

    with safetensors.safe_open(path, framework="numpy") as file:
        return (file.metadata() or {}).get(ARCHITECTURE_KEY)


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
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_unpacked_sizes(archive)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about protocols of pickle, which the message below makes superfluous
            content = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} holds more than tensors, and reading it could run arbitrary code, so it is refused. If you trust "
            "its author, load it in PyTorch with weights_only=False, take the state dict out and save that alone. "
            f"({reason})"
        ) from error
    except DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:300]
        raise ValueError(f"{path} is not a PyTorch checkpoint: {reason}") from error
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

    seen: set[int] = set()

    def state_dicts(content: Any, prefix: str = "", depth: int = 0) -> Iterator[Any]:
        """The state dicts in nested dicts, by the names that lead to them, joined by dots.

        A dict that is met again is passed over: a file of two kilobytes can nest one into itself a million times.
        """
        if not isinstance(content, Mapping) or id(content) in seen or depth > MAX_NESTING:
            return
        seen.add(id(content))
        for name, value in content.items():
            if is_state_dict(value):
                if id(value) not in seen:
                    seen.add(id(value))
                    yield f"{prefix}{name}", value
            elif isinstance(name, str) and not name.startswith("optim"):
                yield from state_dicts(value, f"{prefix}{name}.", depth + 1)

    if entry is None and is_state_dict(content):
        return content
    entries = dict(state_dicts(content))
    if entry is not None:
        if entry not in entries:
            raise ValueError(f"entry must be one of {list(entries)} for {path}, received {entry!r}")
        return entries[entry]
    if len(entries) > 1:
        message = f"{path} holds several sets of weights: choose one by entry=, accepted are {list(entries)}"
        raise SeveralSetsError(message, tuple(entries))
    if not entries:
        raise ValueError(f"{path} holds no state dict: neither is it a dict of tensors, nor is one of its entries")
    return next(iter(entries.values()))


def _as_array(tensor: Any) -> Any:
    """Floating-point tensors as float32 arrays, others as they are."""
    if not isinstance(tensor, np.ndarray):
        tensor = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    # The numpy types of 16-bit floats outside IEEE are of kind "V".
    return tensor.astype("float32", copy=False) if tensor.dtype.kind in "fV" else tensor


def _without_wrappers(name: str) -> str:
    return name.removeprefix(match[0]) if (match := WRAPPERS.match(name)) else name


def _unwrap(tensors: Any, declared: Any, path: Any) -> Any:
    plain: dict[str, Any] = {}
    normalization: dict[str, Any] = {}
    bare = [(_without_wrappers(INSIDE.sub("", name)), tensor) for name, tensor in tensors.items()]
    in_sequence = all(IN_SEQUENCE.match(name) or NORMALIZATION.fullmatch(name) for name, _ in bare)
    for name, tensor in bare:
        name = IN_SEQUENCE.sub("", name, count=1) if in_sequence else name
        name = _without_wrappers(name)
        if DERIVED.fullmatch(name):
            continue
        target = plain
        if match := NORMALIZATION.fullmatch(name):
            if tensor.size not in (1, 3):
                raise ValueError(f"{path} holds a normalisation of {tensor.size} channels ({name}), 3 are expected")
            target, name = normalization, NUMBERS.get(match[1], match[1])
            tensor = np.broadcast_to(tensor.reshape(-1), 3)
        if name in target and not np.array_equal(target[name], tensor):
            raise ValueError(f"{path} holds two different tensors called {name} once wrappers' names are stripped")
        target[name] = tensor
    if normalization.keys() == {"mean", "std"}:
        # Of a net that takes pixels up to 255, in their units: the same function of pixels in [0, 1].
        unit = 255 if max(normalization["std"]) > 2 else 1
        declared = tuple(tuple((normalization[key] / unit).tolist()) for key in ("mean", "std"))
    return StateDict(plain, declared)
