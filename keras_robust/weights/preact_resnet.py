"""Names of pre-activation residual networks' weights in the checkpoints that RobustBench lists."""

from typing import Any

from keras_robust.weights.naming import Naming


def _without_unused(tensors: Any, shapes: Any) -> Any:
    """Without the second copy of the first stage that some of these files hold, and their nets never call."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("sub_block1.")}


# As in github.com/yaodongyu/TRADES, which most wide ResNets follow. They have three stages, the others four.
WIDE = Naming(
    names={
        "stem/*": "conv1.*",
        "stages_#_blocks_#/norm#/*": lambda i, j, k, rest: f"block{i + 1}.layer.{j}.bn{k}.{rest}",
        "stages_#_blocks_#/conv#/*": lambda i, j, k, rest: f"block{i + 1}.layer.{j}.conv{k}.{rest}",
        "stages_#_blocks_#/shortcut/*": lambda i, j, rest: f"block{i + 1}.layer.{j}.convShortcut.{rest}",
        "norm/*": "bn1.*",
        "head/*": "fc.*",
    },
    stem=("conv1.",),
    head=("fc.",),
    unpack=_without_unused,
    suits=lambda shapes: not any(path.startswith("stages_3_") for path in shapes),
)

# As in github.com/kuangliu/pytorch-cifar.
NARROW = Naming(
    names={
        "stem/*": "conv1.*",
        "stages_#_blocks_#/norm#/*": lambda i, j, k, rest: f"layer{i + 1}.{j}.bn{k}.{rest}",
        "stages_#_blocks_#/conv#/*": lambda i, j, k, rest: f"layer{i + 1}.{j}.conv{k}.{rest}",
        "stages_#_blocks_#/shortcut/*": lambda i, j, rest: f"layer{i + 1}.{j}.shortcut.0.{rest}",
        "norm/*": "bn.*",
        "head/*": "linear.*",
    },
    stem=("conv1.",),
    head=("linear.",),
)

# As in github.com/google-deepmind/deepmind-research, adversarial_robustness: "same" padding, counted from 0.
DEEPMIND_WIDE = Naming(
    names={
        "stem/*": "init_conv.*",
        "groups_#_blocks_#/norm#/*": lambda i, j, k, rest: f"layer.{i}.block.{j}.batchnorm_{k - 1}.{rest}",
        "groups_#_blocks_#/conv#/*": lambda i, j, k, rest: f"layer.{i}.block.{j}.conv_{k - 1}.{rest}",
        "groups_#_blocks_#/shortcut/*": lambda i, j, rest: f"layer.{i}.block.{j}.shortcut.{rest}",
        "norm/*": "batchnorm.*",
        "head/*": "logits.*",
    },
    stem=("init_conv.",),
    head=("logits.",),
    suits=lambda shapes: not any(path.startswith("groups_3_") for path in shapes),
)
DEEPMIND_NARROW = Naming(
    names={
        "stem/*": "conv_2d.*",
        "groups_#_blocks_#/norm#/*": lambda i, j, k, rest: f"layer_{i}.{j}.batchnorm_{k - 1}.{rest}",
        "groups_#_blocks_#/conv#/*": lambda i, j, k, rest: f"layer_{i}.{j}.conv_2d_{k}.{rest}",
        "groups_#_blocks_#/shortcut/*": lambda i, j, rest: f"layer_{i}.{j}.shortcut.{rest}",
        "norm/*": "batchnorm.*",
        "head/*": "logits.*",
    },
    stem=("conv_2d.",),
    head=("logits.",),
)

NAMINGS = (WIDE, NARROW, DEEPMIND_WIDE, DEEPMIND_NARROW)
