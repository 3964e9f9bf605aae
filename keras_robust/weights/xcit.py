"""Names of XCiT's weights."""

import re
from typing import Any

import numpy as np

from keras_robust.weights.naming import Naming


def _unpack(tensors: Any, shapes: Any) -> Any:
    """From the names of github.com/facebookresearch/xcit to timm's, where they differ."""
    parts = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(cls_attn_blocks\.\d+\.attn)\.qkv\.(weight|bias)", name)
        if match and tensor.shape[0] % 3 == 0:
            for letter, third in zip("qkv", np.split(tensor, 3)):
                parts[f"{match[1]}.{letter}.{match[2]}"] = third
        else:
            parts[name.replace("pos_embeder.", "pos_embed.")] = tensor
    return parts


TIMM = Naming(
    names={
        "stem/conv_#/*": lambda i, rest: f"patch_embed.proj.{2 * i}.0.{rest}",
        "stem/norm_#/*": lambda i, rest: f"patch_embed.proj.{2 * i}.1.{rest}",
        "position/proj/*": "pos_embed.token_projection.*",
        "class_token/token": "cls_token",
        "blocks_#/scale#/weight": "blocks.#.gamma#",
        "blocks_#/local/norm/*": "blocks.#.local_mp.bn.*",
        "blocks_#/local/*": "blocks.#.local_mp.*",
        "blocks_#/*": "blocks.#.*",
        "class_blocks_#/scale#/weight": "cls_attn_blocks.#.gamma#",
        "class_blocks_#/*": "cls_attn_blocks.#.*",
        "norm/*": "norm.*",
        "head/*": "head.*",
    },
    stem=("patch_embed.",),
    head=("head.",),
    unit_axes=("position/proj/weight", "blocks_#/attn/temperature"),
    unpack=_unpack,
)

NAMINGS = (TIMM,)
