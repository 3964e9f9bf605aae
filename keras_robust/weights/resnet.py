"""Names of ResNets' and RobArch's weights."""

from typing import Any

from keras_robust.weights.naming import Naming

RESNET = Naming(
    names={
        "stem/conv/*": "conv1.*",
        "stem/norm/*": "bn1.*",
        "stages_#_blocks_#/conv#/*": lambda i, j, k, rest: f"layer{i + 1}.{j}.conv{k}.{rest}",
        "stages_#_blocks_#/norm#/*": lambda i, j, k, rest: f"layer{i + 1}.{j}.bn{k}.{rest}",
        "stages_#_blocks_#/shortcut_conv/*": lambda i, j, rest: f"layer{i + 1}.{j}.downsample.0.{rest}",
        "stages_#_blocks_#/shortcut_norm/*": lambda i, j, rest: f"layer{i + 1}.{j}.downsample.1.{rest}",
        "head/*": "fc.*",
    },
    stem=("conv1.", "bn1."),
    head=("fc.",),
    alike={"resnet50": "ReLU", "resnet50_gelu": "GELU"},
)

ROBARCH_LAYERS = {
    "conv1": "F.a.0",
    "conv2": "F.b.0",
    "norm2": "F.b.1",
    "squeeze.fc1": "F.se.fc1",
    "squeeze.fc2": "F.se.fc2",
    "conv3": "F.c.0",
    "norm3": "F.c.1",
    "shortcut_conv": "proj.0",
    "shortcut_norm": "proj.1",
}


def _robarch_block(i: Any, j: Any, rest: Any) -> Any:
    layer, _, leaf = rest.rpartition(".")
    if layer not in ROBARCH_LAYERS:
        return None
    return f"stages.stage{i + 1}.stage{i + 1}-block{j}.{ROBARCH_LAYERS[layer]}.{leaf}"


# As in github.com/ShengYun-Peng/RobArch.
ROBARCH = Naming(
    names={
        "stem/conv/*": "stem.stem.stem.0.*",
        "stem/norm/*": "stem.stem.stem.1.*",
        "stages_#_blocks_#/*": _robarch_block,
        "head/*": "fc.*",
    },
    stem=("stem.",),
    head=("fc.",),
    unit_axes=("stages_#_blocks_#/squeeze/fc#/weight",),
)

NAMINGS = (RESNET, ROBARCH)
