"""Names and layouts of tensors in PyTorch state dicts, from the paths of Keras variables.

The rules of each family of models are in the file that is called after it: `convnext.py`, `vit.py`, ...
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# What PyTorch calls a layer's variables; other names stay.
LEAVES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def _unchanged(tensors: Any, shapes: Any = None) -> Any:
    return tensors


@dataclass(frozen=True)
class Naming:
    """Names that PyTorch code of one origin gives to the weights of one family of models.

    Attributes:
        names: rules from Keras paths (with PyTorch's words for the last part: "weight" for kernel and gamma, ...) to
            tensor names; the first that matches counts. In a rule `#` stands for a number and `*` for any rest, whose
            slashes become dots. The right side is a string with the same signs in the same order, or a function of
            the parts they stand for.
        stem, head: prefixes of the tensors of the stem (any stem) and of the classifier.
        optional: prefixes of tensors of heads for training, left out where the model has no such head.
        unit_axes: tensors, by Keras path as in `names`, with two more axes of size 1 at the end than the Keras
            variable: dense layers written as 1x1 convolutions.
        unpack: function `(tensors, shapes) -> tensors` from the tensors of a file to those of `names`, where the file
            keeps several in one; `shapes` are those wanted, by name.
        pack: function `tensors -> tensors`, the inverse of `unpack`.
        suits: function from the shapes of the model's variables, by path, to whether files are written in this
            naming; among those that do, the first counts.
        alike: architectures that share names and shapes of all tensors with another one, and what sets each apart.
    """

    names: dict[str, str | Callable]
    stem: tuple[str, ...]
    head: tuple[str, ...]
    optional: tuple[str, ...] = ()
    unit_axes: tuple[str, ...] = ()
    unpack: Callable = _unchanged
    pack: Callable = _unchanged
    suits: Callable = lambda shapes: True
    alike: Mapping[str, str] = field(default_factory=dict)

    def name(self, path: Any) -> Any:
        """Tensor name of the Keras variable at `path`; None when the family has no such variable."""
        path = _with_torch_leaf(path)
        for pattern, target in self.names.items():
            if match := re.fullmatch(_regex(pattern), path):
                parts = [part.replace("/", ".") for part in match.groups()]
                if callable(target):
                    return target(*(int(part) if part.isdecimal() else part for part in parts))
                return re.sub(r"[#*]", "{}", target).format(*parts)
        return None

    def to_torch(self, path: Any, value: Any) -> Any:
        """The value of the Keras variable at `path` in PyTorch's layout."""
        value = np.transpose(value, _axes(path, value.shape))
        if any(re.fullmatch(_regex(pattern), _with_torch_leaf(path)) for pattern in self.unit_axes):
            value = value[..., None, None]
        return value


def without_counters(tensors: Any, shapes: Any) -> Any:
    """`tensors` without what `MeanSparse` layers in PyTorch keep beside their statistics, and never use afterwards."""
    counters = ("flag_update_statistics", "batch_num", "momentum", "epsilon")
    return {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in counters}


def conv_stem(prefix: str) -> dict[str, Callable]:
    """Rules for the 3x3 convolutions of a ConvStem, a sequence of convolution, norm, GELU, convolution, ..."""
    return {
        "stem/conv_#/*": lambda i, rest: f"{prefix}.{3 * i}.{rest}",
        "stem/norm_#/*": lambda i, rest: f"{prefix}.{3 * i + 1}.{rest}",
    }


def from_torch(path: Any, tensor: Any, shape: Any) -> Any:
    """`tensor`, in PyTorch's layout, as a value of the Keras variable of this path and shape.

    Returns None if it does not fit. A dense layer may come as a 1x1 convolution.
    """
    axes = _axes(path, shape)
    wanted = tuple(shape[axis] for axis in axes)
    if tensor.shape not in (wanted, (*wanted, 1, 1)):
        return None
    return np.transpose(tensor.reshape(wanted), np.argsort(axes))


def torch_shape(path: Any, shape: Any) -> Any:
    """Shape in PyTorch's layout of a Keras variable."""
    return tuple(shape[axis] for axis in _axes(path, shape))


def _axes(path: Any, shape: Any) -> Any:
    """Order of the Keras variable's axes in PyTorch's tensor."""
    if not path.endswith("/kernel"):
        return tuple(range(len(shape)))
    if len(shape) == 2:
        return (1, 0)
    depthwise = shape[-1] == 1
    return (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)


def _with_torch_leaf(path: Any) -> Any:
    layer, slash, leaf = path.rpartition("/")
    return layer + slash + LEAVES.get(leaf, leaf)


def _regex(pattern: Any) -> Any:
    return re.escape(pattern).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)")
