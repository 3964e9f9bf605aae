"""Names of the vision transformers' weights."""

import math
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_robust.layers.vit import bicubic_weights
from keras_robust.weights.naming import Naming, conv_stem


def resize(embedding: Any, grid: Any) -> Any:
    """Position embedding `(rows, columns, channels)` for another grid, by the rule of `PositionEmbedding`."""
    if embedding.shape[:2] == tuple(grid):
        return embedding
    by_row, by_column = (keras.ops.convert_to_numpy(bicubic_weights(g, n)) for g, n in zip(embedding.shape[:2], grid))
    return np.einsum("ir,jc,rcd->ijd", by_row, by_column, embedding, optimize=True)


def _unpack(tensors: Any, shapes: Any) -> Any:
    """Cut "pos_embed" into the class token's row and a grid of patches, resized to the model's if need be."""
    embedding, grid = tensors.get("pos_embed"), shapes["pos_embed.patches"][:2]
    if embedding is None or embedding.ndim != 3:
        return tensors
    parts = {name: tensor for name, tensor in tensors.items() if name != "pos_embed"}
    if "pos_embed.class" in shapes:
        parts["pos_embed.class"], embedding = embedding[:, :1], embedding[:, 1:]
    _, patches, channels = embedding.shape
    side = math.isqrt(patches)
    if patches == math.prod(grid):
        embedding = embedding.reshape(*grid, channels)
    elif patches and side**2 == patches:
        embedding = resize(embedding.reshape(side, side, channels), grid)
    return {**parts, "pos_embed.patches": embedding}


def _pack(tensors: Any) -> Any:
    parts = {name: tensor for name, tensor in tensors.items() if not name.startswith("pos_embed.")}
    patches = tensors["pos_embed.patches"]
    rows = [patches.reshape(1, -1, patches.shape[-1])]
    if "pos_embed.class" in tensors:
        rows.insert(0, tensors["pos_embed.class"])
    return {**parts, "pos_embed": np.concatenate(rows, axis=1)}


TIMM = Naming(
    names={
        "stem/proj/*": "patch_embed.proj.*",
        "position/embedding": "pos_embed.patches",
        "class_token/embedding": "pos_embed.class",
        "class_token/token": "cls_token",
        "blocks_#/scale#/weight": "blocks.#.ls#.gamma",
        "blocks_#/norm#/*": "blocks.#.norm#.*",
        "blocks_#/attn/*": "blocks.#.attn.*",
        "blocks_#/mlp/*": "blocks.#.mlp.*",
        "norm/*": "norm.*",
        "fc_norm/*": "fc_norm.*",
        "head/*": "head.*",
    },
    stem=("patch_embed.",),
    head=("head.",),
    unpack=_unpack,
    pack=_pack,
)
TIMM_CONV_STEM = replace(
    TIMM,
    names={**TIMM.names, **conv_stem("patch_embed.proj.stem"), "stem/proj/*": "patch_embed.proj.stem.12.*"},
)
# LayerScale as in github.com/facebookresearch/deit.
DEIT = replace(TIMM, names={**TIMM.names, "blocks_#/scale#/weight": "blocks.#.gamma_#"})

NAMINGS = (TIMM, TIMM_CONV_STEM, DEIT)
