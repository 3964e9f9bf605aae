"""State dicts of small models, by names typed from the published code."""

import re

import numpy as np
from safetensors.numpy import load_file


def _draw(shapes):
    rng = np.random.RandomState(0)
    return {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def _original_block(name, dim):
    return {
        f"{name}.dwconv.weight": (dim, 1, 7, 7),
        f"{name}.dwconv.bias": (dim,),
        f"{name}.norm.weight": (dim,),
        f"{name}.norm.bias": (dim,),
        f"{name}.pwconv1.weight": (4 * dim, dim),
        f"{name}.pwconv1.bias": (4 * dim,),
        f"{name}.pwconv2.weight": (dim, 4 * dim),
        f"{name}.pwconv2.bias": (dim,),
    }


def _norm_and_head(dim, num_classes):
    norm = {"norm.weight": (dim,), "norm.bias": (dim,)}
    return norm | {"head.weight": (num_classes, dim), "head.bias": (num_classes,)}


def isotropic(dim=4, depth=2, num_classes=3):
    shapes = {"stem.weight": (dim, 3, 16, 16), "stem.bias": (dim,)}
    for j in range(depth):
        shapes |= _original_block(f"blocks.{j}", dim)
    return _draw(shapes | _norm_and_head(dim, num_classes))


def original_convnext(dims=(4, 6, 8, 10), num_classes=3):
    shapes = {}
    for i, dim in enumerate(dims):
        conv = "downsample_layers.0.0" if i == 0 else f"downsample_layers.{i}.1"
        norm = "downsample_layers.0.1" if i == 0 else f"downsample_layers.{i}.0"
        kernel, normed = ((3, 4, 4), dim) if i == 0 else ((dims[i - 1], 2, 2), dims[i - 1])
        shapes |= {f"{conv}.weight": (dim, *kernel), f"{conv}.bias": (dim,)}
        shapes |= {f"{norm}.weight": (normed,), f"{norm}.bias": (normed,)}
        shapes |= _original_block(f"stages.{i}.0", dim) | {f"stages.{i}.0.gamma": (dim,)}
    return _draw(shapes | _norm_and_head(dims[-1], num_classes))


def read(path):
    return load_file(path)


def older_swin(state_dict):
    renamed = {}
    for name, tensor in state_dict.items():
        name = re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name)
        renamed[name.replace("head.fc.", "head.")] = tensor
    renamed["layers.0.blocks.1.attn_mask"] = np.zeros((1, 4, 4), "float32")
    renamed["layers.0.blocks.0.attn.relative_position_index"] = np.zeros((49, 49), "int64")
    return renamed


def original_xcit(state_dict):
    renamed = {name.replace("pos_embed.", "pos_embeder."): tensor for name, tensor in state_dict.items()}
    for leaf in ("weight", "bias"):
        for j in range(2):
            attn = f"cls_attn_blocks.{j}.attn"
            renamed[f"{attn}.qkv.{leaf}"] = np.concatenate([renamed.pop(f"{attn}.{x}.{leaf}") for x in "qkv"])
    return renamed


def original_deit(state_dict):
    return {re.sub(r"ls(\d)\.gamma", r"gamma_\1", name): tensor for name, tensor in state_dict.items()}


def original_convnext_v2(state_dict):
    renamed = {}
    for name, tensor in state_dict.items():
        name = re.sub(r"^(stages\.\d)\.blocks\.", r"\1.", name)
        name = name.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv").replace("head.fc.", "head.")
        name = re.sub(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name)
        name = name.replace("head.norm.", "norm.").replace("stem.", "downsample_layers.0.")
        if ".mlp.grn." in name:
            name = name.replace("mlp.grn.weight", "grn.gamma").replace("mlp.grn.bias", "grn.beta")
            tensor = tensor.reshape(1, 1, 1, -1)
        renamed[name] = tensor
    return renamed


def trades_with_sub_block(state_dict):
    """A second copy of the first stage, which the nets never call."""
    copy = {f"sub_{name}": tensor for name, tensor in state_dict.items() if name.startswith("block1.")}
    return state_dict | copy
