"""Names of ConvNeXt's weights, in stages and isotropic."""

from dataclasses import replace
from typing import Any

import numpy as np

from keras_robust.weights.naming import Naming, conv_stem, without_counters

TIMM = Naming(
    names={
        "stem/proj/*": "stem.0.*",
        "stem/norm/*": "stem.1.*",
        **conv_stem("stem.stem"),
        "stages_#_downsample/norm/*": "stages.#.downsample.0.*",
        "stages_#_downsample/conv/*": "stages.#.downsample.1.*",
        "stages_#_blocks_#/scale/weight": "stages.#.blocks.#.gamma",
        "stages_#_blocks_#/conv_dw/*": "stages.#.blocks.#.conv_dw.*",
        "stages_#_blocks_#/norm/*": "stages.#.blocks.#.norm.*",
        # As in github.com/SPIN-UMass/MeanSparse.
        "stages_#_blocks_#/mlp/sparse/*": "stages.#.blocks.#.mlp.act.0.*",
        "stages_#_blocks_#/sparse/*": "stages.#.blocks.#.drop_path.1.*",
        "stages_#_blocks_#/mlp/*": "stages.#.blocks.#.mlp.*",  # of V2 also its global response normalisation
        "norm/*": "head.norm.*",
        "head/*": "head.fc.*",
    },
    stem=("stem.",),
    head=("head.fc.",),
    unpack=without_counters,
)

# timm's smallest models have 1x1 convolutions for dense layers.
TIMM_ATTO = replace(
    TIMM,
    unit_axes=("stages_#_blocks_#/mlp/fc#/weight",),
    suits=lambda shapes: shapes.get("norm/gamma") == (320,),
)


def _original_block(block: str, name: str) -> dict[str, str]:
    return {
        f"{block}/scale/weight": f"{name}.gamma",
        f"{block}/conv_dw/*": f"{name}.dwconv.*",
        f"{block}/norm/*": f"{name}.norm.*",
        f"{block}/mlp/fc#/*": f"{name}.pwconv#.*",
        f"{block}/mlp/grn/weight": f"{name}.grn.gamma",
        f"{block}/mlp/grn/bias": f"{name}.grn.beta",
    }


def _grn_vectors(tensors: dict[str, np.ndarray], shapes: Any) -> dict[str, np.ndarray]:
    """With global response normalisations' weights as vectors, which the original code keeps as (1, 1, 1, channels)."""
    return {name: tensor.reshape(-1) if ".grn." in name else tensor for name, tensor in tensors.items()}


# As in github.com/facebookresearch/ConvNeXt and ConvNeXt-V2.
ORIGINAL = Naming(
    names={
        "stem/proj/*": "downsample_layers.0.0.*",
        "stem/norm/*": "downsample_layers.0.1.*",
        "stages_#_downsample/norm/*": "downsample_layers.#.0.*",
        "stages_#_downsample/conv/*": "downsample_layers.#.1.*",
        **_original_block("stages_#_blocks_#", "stages.#.#"),
        "norm/*": "norm.*",
        "head/*": "head.*",
    },
    stem=("downsample_layers.0.",),
    head=("head.",),
    unpack=_grn_vectors,
)

ISOTROPIC = Naming(
    names={
        "stem/proj/*": "stem.*",
        **_original_block("blocks_#", "blocks.#"),
        "norm/*": "norm.*",
        "head/*": "head.*",
    },
    stem=("stem.",),
    head=("head.",),
)
ISOTROPIC_CONV_STEM = replace(
    ISOTROPIC, names={**ISOTROPIC.names, **conv_stem("stem.stem"), "stem/proj/*": "stem.stem.12.*"}
)

NAMINGS = (TIMM_ATTO, TIMM, ORIGINAL, ISOTROPIC, ISOTROPIC_CONV_STEM)
