"""UPerNet in plain PyTorch, its tensors named as in the authors' repository, written from the published specification.

`upernet(state, x, depths)` takes tensors (batch, 3, height, width) and a state dict; nothing of the package.
"""

import torch
from torch.nn import functional as F


def layer_norm(state, name, x):
    x = x.permute(0, 2, 3, 1)
    x = F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)
    return x.permute(0, 3, 1, 2)


def conv(state, name, x, **options):
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **options)


def conv_norm_relu(state, name, x):
    padding = state[f"{name}.conv.weight"].shape[-1] // 2
    x = conv(state, f"{name}.conv", x, padding=padding)
    buffers = [state[f"{name}.batch_norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    return F.relu(F.batch_norm(x, *buffers, training=False, eps=1e-5))


def resized(x, like):
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


def backbone(state, x, depths):
    levels = []
    for i, depth in enumerate(depths):
        name = f"backbone.downsample_layers.{i}"
        if i:
            x = conv(state, f"{name}.1", layer_norm(state, f"{name}.0", x), stride=2)
        else:
            for j in (0, 3):
                x = conv(state, f"{name}.stem.{j}", x, stride=2, padding=1)
                x = F.gelu(layer_norm(state, f"{name}.stem.{j + 1}", x))
        for j in range(depth):
            name = f"backbone.stages.{i}.{j}"
            y = conv(state, f"{name}.dwconv", x, padding=3, groups=x.shape[1])
            y = layer_norm(state, f"{name}.norm", y).permute(0, 2, 3, 1)
            y = F.gelu(F.linear(y, state[f"{name}.pwconv1.weight"], state[f"{name}.pwconv1.bias"]))
            y = F.linear(y, state[f"{name}.pwconv2.weight"], state[f"{name}.pwconv2.bias"])
            x = x + (state[f"{name}.gamma"] * y).permute(0, 3, 1, 2)
        levels.append(layer_norm(state, f"backbone.norm{i}", x))
    return levels


def upernet(state, x, depths):
    """Logits of the head and of the auxiliary head, (batch, classes, height, width)."""
    levels = backbone(state, x, depths)
    top = levels[-1]
    parts = [top]
    for i, cells in enumerate((1, 2, 3, 6)):
        pooled = conv_norm_relu(state, f"decode_head.psp_modules.{i}.1", F.adaptive_avg_pool2d(top, cells))
        parts.append(resized(pooled, top))
    laterals = [conv_norm_relu(state, f"decode_head.lateral_convs.{i}", level) for i, level in enumerate(levels[:3])]
    laterals.append(conv_norm_relu(state, "decode_head.bottleneck", torch.cat(parts, 1)))
    for i in (2, 1, 0):
        laterals[i] = laterals[i] + resized(laterals[i + 1], laterals[i])
    maps = [conv_norm_relu(state, f"decode_head.fpn_convs.{i}", laterals[i]) for i in range(3)] + [laterals[3]]
    joined = torch.cat([maps[0], *(resized(each, maps[0]) for each in maps[1:])], 1)
    logits = conv(state, "decode_head.classifier", conv_norm_relu(state, "decode_head.fpn_bottleneck", joined))
    auxiliary = conv_norm_relu(state, "auxiliary_head.convs.0", levels[2])
    return resized(logits, x), resized(conv(state, "auxiliary_head.classifier", auxiliary), x)
