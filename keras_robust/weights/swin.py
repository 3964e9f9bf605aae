"""Names of Swin's weights."""

from dataclasses import replace

from keras_robust.weights.naming import Naming, without_counters

TIMM = Naming(
    names={
        "stem/*": "patch_embed.*",
        "stages_#_downsample/norm/*": "layers.#.downsample.norm.*",
        "stages_#_downsample/proj/*": "layers.#.downsample.reduction.*",
        "stages_#_blocks_#/attn/bias_table": "layers.#.blocks.#.attn.relative_position_bias_table",
        # As in github.com/SPIN-UMass/MeanSparse.
        "stages_#_blocks_#/mlp/sparse/*": "layers.#.blocks.#.mlp.meansparse1.*",
        "stages_#_blocks_#/sparse1/*": "layers.#.blocks.#.meansparse1.*",
        "stages_#_blocks_#/sparse2/*": "layers.#.blocks.#.mlp.meansparse2.*",
        "stages_#_blocks_#/sparse3/*": "layers.#.blocks.#.meansparse2.*",
        "stages_#_blocks_#/*": "layers.#.blocks.#.*",
        "norm/*": "norm.*",
        "head/*": "head.fc.*",
    },
    stem=("patch_embed.",),
    head=("head.",),
    unpack=without_counters,
    alike={"swin_base": "LayerNorm epsilon 1e-5", "swin_base_mimir": "LayerNorm epsilon 1e-6"},
)
# Before timm 0.9 and in github.com/microsoft/Swin-Transformer a stage ends in what now begins the next.
ORIGINAL = replace(
    TIMM,
    names={
        **TIMM.names,
        "stages_#_downsample/norm/*": lambda i, rest: f"layers.{i - 1}.downsample.norm.{rest}",
        "stages_#_downsample/proj/*": lambda i, rest: f"layers.{i - 1}.downsample.reduction.{rest}",
        "head/*": "head.*",
    },
)

NAMINGS = (TIMM, ORIGINAL)
