"""Names of UPerNet's weights on a ConvNeXt."""

from typing import Any

from keras_robust.weights.convnext import ORIGINAL
from keras_robust.weights.naming import Naming, conv_stem

HEADS = ("decode_head.", "auxiliary_head.")
BACKBONE = "backbone."  # taken for a wrapper, and away, when a file is read


def _with_backbone(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name if name.startswith(HEADS) else BACKBONE + name: tensor for name, tensor in tensors.items()}


def _naming(norm: str, classifier: str) -> Naming:
    """The names of code that calls a batch norm and the last layer of a head as given."""
    parts = {"conv": "conv", "norm": norm}
    blocks = {
        "lateral_#": "decode_head.lateral_convs.#",
        "fpn_#": "decode_head.fpn_convs.#",
        "fpn_bottleneck": "decode_head.fpn_bottleneck",
        "pooling_#": "decode_head.psp_modules.#.1",
        "bottleneck": "decode_head.bottleneck",
        "auxiliary": "auxiliary_head.convs.0",
    }
    return Naming(
        names={
            **{k: v for k, v in ORIGINAL.names.items() if not k.startswith(("norm/", "head/"))},
            **conv_stem("downsample_layers.0.stem"),
            "level_norm_#/*": "norm#.*",
            **{
                f"{block}_{part}/*": f"{name}.{theirs}.*"
                for block, name in blocks.items()
                for part, theirs in parts.items()
            },
            "classifier/*": f"decode_head.{classifier}.*",
            "auxiliary_classifier/*": f"auxiliary_head.{classifier}.*",
        },
        stem=ORIGINAL.stem,
        head=HEADS,
        optional=("auxiliary_head.",),
        pack=_with_backbone,
    )


# As in github.com/nmndeep/Robust-Segmentation, then as in mmsegmentation.
NAMINGS = (_naming("batch_norm", "classifier"), _naming("bn", "conv_seg"))
