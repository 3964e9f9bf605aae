"""Loading of a file into a model."""

import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_robust.files import DAMAGE
from keras_robust.layers import ImageInput, Normalize
from keras_robust.weights import convnext, keras_archive, preact_resnet, reading, resnet, swin, upernet, vit, xcit
from keras_robust.weights.naming import Naming, from_torch, torch_shape

NAMINGS = (
    *convnext.NAMINGS,
    *vit.NAMINGS,
    *resnet.NAMINGS,
    *preact_resnet.NAMINGS,
    *swin.NAMINGS,
    *xcit.NAMINGS,
    *upernet.NAMINGS,
)
TENSOR_SUFFIXES = (*reading.TORCH_SUFFIXES, ".safetensors", reading.INDEX)


class MisfitError(ValueError):
    """A file whose weights are not those of a model.

    Attributes:
        shapes: of the arrays in the file, by name; empty where they are not known.
    """

    def __init__(self, message: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(message)
        self.shapes = shapes


def load(
    model: keras.Model,
    path: str | PathLike,
    head: str | None = None,
    stem: str | None = None,
    entry: str | None = None,
    rename: reading.Rename | None = None,
    stated: bool = False,
) -> None:
    """Load weights from a file into a model.

    Reads PyTorch state dicts: timm's ConvNeXt and ConvNeXt V2, ViT, DeiT, ResNet, Swin and XCiT, those of the original
    repositories (ConvNeXt, also isotropic, and ConvNeXt V2, DeiT III, Swin, XCiT, RobArch), the robust checkpoints
    published with "Revisiting Adversarial Training for ImageNet", RobustBench's wide and pre-activation ResNets for
    CIFAR, and UPerNet on ConvNeXt as in mmsegmentation and in the checkpoints published with "Towards Reliable
    Evaluation and Fast Training of Robust Semantic Segmentation Models". Which of them a file is follows from its
    names. Names of wrappers around the model and within it are ignored ("module.", "base_model.", "model.", "net.",
    "backbone.", "_orig_mod.", "_fsdp_wrapped_module.", a sequence of normalisation and net), and a normalisation in
    the file is understood. Also reads Keras' own files.

    Strict: either the model gets every one of its weights from the file and the file has no others, or it stays as it
    was. A position embedding of another grid is resized as the published models are evaluated
    (`keras_robust.layers.PositionEmbedding`); a file's is taken to be square unless it has as many patches as the
    model's.

    Args:
        model: from `keras_robust.models.create` or `keras_robust.segmentation.create`.
        path: .pt, .pth, .tar, .bin or Lightning's .ckpt (these need PyTorch, and are refused if they hold more than
            tensors), .safetensors, the .index.json of weights in several files, .keras or .weights.h5.
        head: "skip" keeps the model's own classifier, as a changed number of classes needs.
        stem: "skip" keeps the model's own stem: clean weights with a PatchStem initialise a model with a ConvStem so.
        entry: which part of a file of PyTorch to read, where it holds several state dicts ("model_ema", ...).
        rename: from the names in a file of tensors to those of a known kind: {"encoder.": ""}, by how names begin, or
            a function of the name, which may give None for a tensor to leave out.
        stated: the net of a file that does not tell is known to take raw pixels, and to be of the model's architecture;
            without it there is a warning, as most published nets normalise outside of their files.

    Raises:
        ValueError: the file cannot be read or does not fit: the first ten of the missing, surplus and misshapen
            weights, and of those with NaN or infinite values, are listed and all are counted; the file carries a
            normalisation that the model does not have, or the reverse where the file tells.
        FileNotFoundError: there is no such file.

    Example:

    >>> model = kr.models.create("convnext_tiny_convstem")  # the file is to be downloaded  # doctest: +SKIP
    >>> kr.weights.load(model, "convnext_tiny_cvst_robust.pt")  # doctest: +SKIP
    """
    path = Path(path)
    skipped = _skipped(head, stem)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.name.endswith(TENSOR_SUFFIXES):
        values = _from_torch_file(model, path, skipped, entry, rename, stated)
    elif entry is not None or rename is not None:
        raise ValueError(f"entry and rename are for files of tensors; received {entry!r} and {rename!r} with {path}")
    elif path.suffix == ".keras":
        values = _from_keras_file(model, path, skipped)
    elif path.name.endswith(".weights.h5"):
        values = _from_h5_file(model, path, skipped)
    else:
        raise ValueError(
            f"path must end in one of {', '.join(TENSOR_SUFFIXES)}, .keras, .weights.h5; received {str(path)!r}"
        )
    for variable in model.weights:
        if variable.path in values:
            variable.assign(values[variable.path])


def _skipped(head: Any, stem: Any) -> Any:
    for name, value in (("head", head), ("stem", stem)):
        if value not in (None, "skip"):
            raise ValueError(f'{name} must be None or "skip", received {value!r}')
    return [name for name, value in (("head", head), ("stem", stem)) if value == "skip"]


def _wanted(model: Any, skipped: Any) -> Any:
    """Shapes of the model's weights by path, without the skipped parts."""
    weights = {variable.path: tuple(variable.shape) for variable in model.weights}
    return {path: shape for path, shape in weights.items() if path.split("/")[0] not in skipped}


def _from_torch_file(model: Any, path: Any, skipped: Any, entry: Any, rename: Any, stated: bool) -> Any:
    file = reading.read(path, entry, rename)
    wanted = _wanted(model, skipped)
    naming, names = _recognise(wanted, file.tensors, model, path)
    left_out = tuple(prefix for part in skipped for prefix in getattr(naming, part))
    left_out += tuple(part for part in naming.optional if not any(name.startswith(part) for name in names.values()))
    tensors = {name: tensor for name, tensor in file.tensors.items() if not name.startswith(left_out)}
    tensors = naming.unpack(tensors, {name: wanted[keras_path] for keras_path, name in names.items()})

    values, misshapen = {}, []
    for keras_path, name in names.items():
        if name in tensors:
            value = from_torch(keras_path, tensors[name], wanted[keras_path])
            if value is None or not np.issubdtype(value.dtype, np.floating):
                shape = torch_shape(keras_path, wanted[keras_path])
                misshapen.append(f"{name}: file {tensors[name].dtype} {tensors[name].shape}, model {shape}")
            values[keras_path] = value
    _refuse_misfits(
        model,
        path,
        missing=[name for name in names.values() if name not in tensors],
        surplus=[name for name in tensors if name not in set(names.values())],
        misshapen=misshapen,
        infinite=_infinite(tensors),
        parts={"head": naming.head, "stem": naming.stem},
        shapes=_shapes(file.tensors),
        besides=_normalization_misfit(model, file.normalization),
    )
    there, here = reading.declared_architecture(path), architecture_name(model)
    if naming.alike and there and here and there != here:
        raise ValueError(f"{path} holds weights of {there}, whose names and shapes {here} shares: they are other nets")
    if file.normalization is reading.UNKNOWN and not stated:
        _warn_of_what_is_not_told(model, path, naming)
    return values


def _warn_of_what_is_not_told(model: keras.Model, path: Path, naming: Naming) -> None:
    """Names and shapes fit alike with and without a normalisation, and those of some architectures are the same."""
    doubts = []
    if normalization_of(model) is None:
        doubts.append(
            f"whether its net normalises its pixels, while {model.name} takes them raw: if it does, create the model "
            "with normalization=(mean, std)"
        )
    if architecture_name(model) in naming.alike:
        kinds = " or ".join(f"{name} ({what})" for name, what in naming.alike.items())
        doubts.append(f"which its net is: {kinds}")
    if doubts:
        warnings.warn(
            f"{path} does not tell {'; nor '.join(doubts)}. Otherwise its figures would be wrong without a word; "
            "stated=True if the model is right.",
            stacklevel=4,
        )


def _recognise(wanted: Any, tensors: Any, model: Any, path: Any) -> Any:
    """The naming with the most names in common with the file, and its names of the weights by their Keras paths."""
    best, most = None, 0
    for naming in NAMINGS:
        names = {keras_path: naming.name(keras_path) for keras_path in wanted}
        if None in names.values():
            continue
        in_common = len(tensors.keys() & set(names.values()))
        if in_common > most:
            best, most = (naming, names), in_common
    if best is None:
        examples = ", ".join(list(tensors)[:5])
        raise MisfitError(
            f"{path} holds no weights of {model.name}: its tensors are called {examples}, ...", _shapes(tensors)
        )
    return best


def _from_keras_file(model: Any, path: Any, skipped: Any) -> Any:
    source = keras_archive.load(path)
    # A model saved within its trainer.
    source = getattr(source, "model", source)
    wanted = _wanted(model, skipped)
    arrays = {v.path: keras.ops.convert_to_numpy(v) for v in source.weights if v.path.split("/")[0] not in skipped}
    embedding = arrays.get("position/embedding")
    if embedding is not None and "position/embedding" in wanted:
        arrays["position/embedding"] = vit.resize(embedding, wanted["position/embedding"][:2])
    _refuse_misfits(
        model,
        path,
        missing=[name for name in wanted if name not in arrays],
        surplus=[name for name in arrays if name not in wanted],
        misshapen=[
            f"{name}: file {arrays[name].shape}, model {shape}"
            for name, shape in wanted.items()
            if name in arrays and arrays[name].shape != shape
        ],
        infinite=_infinite(arrays),
        parts={"head": ("head/",), "stem": ("stem/",)},
        shapes=_shapes(arrays),
        besides=_normalization_misfit(model, normalization_of(source)),
    )
    return arrays


def _from_h5_file(model: Any, path: Any, skipped: Any) -> Any:
    if skipped:
        raise ValueError(
            f'{" and ".join(skipped)}="skip" cannot be had from {path}: it knows no names of parts; use a .keras file'
        )
    in_file, normalization = _look_into_h5(path)
    if besides := _normalization_misfit(model, normalization):
        raise ValueError(f"{path} {besides}")
    # Keras stops in the middle of a file that does not fit: let it do so in a copy.
    twin = keras.models.clone_model(model)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            twin.load_weights(path)
    except DAMAGE as error:
        raise ValueError(f"{path} does not fit {model.name}: {str(error) or type(error).__name__}") from error
    if caught:  # of weights that stayed as they were
        raise ValueError(f"{path} does not fit {model.name}: {caught[0].message}")
    if in_file != len(twin.weights):
        raise ValueError(f"{path} does not fit {model.name}: it holds {in_file} arrays for {len(twin.weights)} weights")
    values = {variable.path: keras.ops.convert_to_numpy(variable) for variable in twin.weights}
    _refuse_misfits(model, path, infinite=_infinite(values))
    return values


def _look_into_h5(path: Any) -> Any:
    """Number of weights in a .weights.h5 file, and its normalisation: `(mean, std)` or None."""
    import h5py

    count, normalization = 0, {}

    def visit(name: str, item: Any) -> None:
        nonlocal count
        if isinstance(item, h5py.Dataset) and "seed_generator" not in name:
            leaf = name.rpartition("/")[2]
            if leaf in ("mean", "std"):  # of `Normalize`; weights are numbered
                normalization[leaf] = tuple(item[:].tolist())
            else:
                count += 1

    try:
        with h5py.File(path) as file:
            keras_archive.values_in(file)
            file.visititems(visit)
    except DAMAGE as error:
        raise ValueError(f"{path} is not a .weights.h5 file: {str(error) or type(error).__name__}") from error
    return count, (normalization["mean"], normalization["std"]) if len(normalization) == 2 else None


def architecture_name(model: keras.Layer) -> str | None:
    """The name of the architecture that a model was created as; None of other models."""
    layers = getattr(model, "layers", ())
    return next((layer.architecture for layer in layers if isinstance(layer, ImageInput)), None)


def normalization_of(model: Any) -> Any:
    for layer in model.layers:
        if isinstance(layer, Normalize):
            return layer.mean, layer.std
    return None


def _normalization_misfit(model: Any, of_file: Any) -> str:
    """What is wrong with the normalisation in a file; "" where nothing is, or where the file does not tell."""
    of_model = normalization_of(model)
    if of_file is reading.UNKNOWN:
        return ""
    if of_file is None:
        return "" if of_model is None else "is for raw pixels: create the model with normalization=None"
    if of_model is not None and np.allclose(of_model, of_file, rtol=1e-5, atol=0):
        return ""
    mean, std = (tuple(float(f"{value:.7g}") for value in values) for values in of_file)
    return (
        f"carries a normalisation: create the model with normalization=({mean}, {std}); "
        f"received a model with {'none' if of_model is None else of_model}"
    )


def _shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.shape) for name, array in arrays.items()}


def fitting(wanted: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many weights of a model a file has, under the names that fit best.

    Args:
        wanted: shapes of the model's weights by their paths.
        shapes: of the arrays in the file by their names, of PyTorch or Keras.
    """
    counts = [sum(shapes.get(path) == shape for path, shape in wanted.items())]
    for naming in NAMINGS:
        names = {path: naming.name(path) for path in wanted}
        if None not in names.values():
            # A dense layer may come as a 1x1 convolution.
            accepted = {name: torch_shape(path, wanted[path]) for path, name in names.items()}
            counts.append(sum(shapes.get(name) in (shape, (*shape, 1, 1)) for name, shape in accepted.items()))
    return max(counts)


def _infinite(arrays: Any) -> Any:
    return [name for name, array in arrays.items() if not np.isfinite(array).all()]


def _refuse_misfits(
    model: Any,
    path: Any,
    missing: Any = (),
    surplus: Any = (),
    misshapen: Any = (),
    infinite: Any = (),
    parts: Any = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    besides: str = "",
) -> None:
    """Raises a `MisfitError` of all that is wrong; `besides` is what is known of other things than the weights."""
    lists = {"missing": missing, "surplus": surplus, "misshapen": misshapen, "not finite": infinite}
    misfits = [item for items in lists.values() for item in items]
    if not misfits:
        if besides:
            raise ValueError(f"{path} {besides}")
        return
    lines = []
    for kind, items in lists.items():
        if items:
            more = f", and {len(items) - 10} more" if len(items) > 10 else ""
            lines.append(f"{len(items)} {kind}: {', '.join(items[:10])}{more}")
    for part, prefixes in (parts or {}).items():
        if all(item.startswith(prefixes) for item in misfits):
            lines.append(f'all are in the {part}: {part}="skip" keeps the model\'s own')
    if besides:
        lines.append(f"it {besides}")
    raise MisfitError(f"{path} does not fit {model.name}: " + "; ".join(lines), shapes or {})
