"""The models written a second time, in plain PyTorch, from the published block specifications.

Each function maps images `(batch, height, width, 3)` to logits, given `w`: the weights by their Keras path.
"""

import zlib

import numpy as np
import torch
from torch.nn import functional as F


def set_random_weights(model):
    """Fill the model with weights that depend on their paths only; returns them by path, for PyTorch."""
    weights = {}
    for variable in model.weights:
        rng = np.random.RandomState(zlib.crc32(variable.path.encode()))
        if variable.path.endswith(("gamma", "moving_variance")):
            value = rng.uniform(0.5, 1.5, variable.shape)
        else:
            value = rng.normal(0.0, 0.3, variable.shape)
        value = value.astype("float32")
        variable.assign(value)
        weights[variable.path] = torch.tensor(value)
    return weights


def dense(w, name, x):
    return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]


def norm(w, name, x, eps=1e-6):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}/gamma"], w[f"{name}/beta"], eps)


def conv(w, name, x, stride=1, padding=0, groups=1):
    kernel = w[f"{name}/kernel"]
    # Keras keeps a depthwise kernel as (height, width, channels, 1).
    kernel = kernel.permute(2, 3, 0, 1) if groups > 1 else kernel.permute(3, 2, 0, 1)
    y = F.conv2d(x.permute(0, 3, 1, 2), kernel, w.get(f"{name}/bias"), stride, padding, groups=groups)
    return y.permute(0, 2, 3, 1)


def mlp(w, name, x):
    x = F.gelu(dense(w, f"{name}/fc1", x))
    if f"{name}/grn/gamma" in w:
        length = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        relative = length / (length.mean(-1, keepdim=True) + 1e-6)
        x = w[f"{name}/grn/gamma"] * x * relative + w[f"{name}/grn/beta"] + x
    return dense(w, f"{name}/fc2", x)


def stem(w, x, stride, n_convs, patch_norm):
    if n_convs == 0:
        x = conv(w, "stem/proj", x, stride)
        return norm(w, "stem/norm", x) if patch_norm else x
    total = 1
    for i in range(n_convs):
        step = 2 if total < stride else 1
        total *= step
        x = F.gelu(norm(w, f"stem/norm_{i}", conv(w, f"stem/conv_{i}", x, step, padding=1)))
    return conv(w, "stem/proj", x) if "stem/proj/kernel" in w else x


def convnext_block(w, name, x):
    y = conv(w, f"{name}/conv_dw", x, padding=3, groups=x.shape[-1])
    y = mlp(w, f"{name}/mlp", norm(w, f"{name}/norm", y))
    return x + y * w.get(f"{name}/scale/gamma", 1.0)


def convnext(w, x, depths, n_convs):
    x = stem(w, x, 4, n_convs, patch_norm=True)
    for i, depth in enumerate(depths):
        if i > 0:
            x = conv(w, f"stages_{i}_downsample/conv", norm(w, f"stages_{i}_downsample/norm", x), 2)
        for j in range(depth):
            x = convnext_block(w, f"stages_{i}_blocks_{j}", x)
    return dense(w, "head", norm(w, "norm", x.mean((1, 2))))


def isotropic(w, x, depth, n_convs):
    x = stem(w, x, 16, n_convs, patch_norm=False)
    for j in range(depth):
        x = convnext_block(w, f"blocks_{j}", x)
    return dense(w, "head", norm(w, "norm", x.mean((1, 2))))


def attention(w, name, x, heads):
    batch, tokens, channels = x.shape
    q, k, v = dense(w, f"{name}/qkv", x).reshape(batch, tokens, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
    weights = torch.softmax(q @ k.transpose(-1, -2) / (channels // heads) ** 0.5, dim=-1)
    return dense(w, f"{name}/proj", (weights @ v).transpose(1, 2).reshape(batch, tokens, channels))


def vit(w, x, depth, heads, n_convs, patch=16, average=False):
    x = stem(w, x, patch, n_convs, patch_norm=False)
    batch, rows, columns, channels = x.shape
    position = w["position/embedding"]
    g_rows, g_columns, _ = position.shape
    if (rows, columns) != (g_rows, g_columns):
        position = F.interpolate(
            position.permute(2, 0, 1)[None],
            scale_factor=((rows + 0.1) / g_rows, (columns + 0.1) / g_columns),
            mode="bicubic",
            recompute_scale_factor=False,
        )[0].permute(1, 2, 0)
    x = (x + position).reshape(batch, rows * columns, channels)
    token = w["class_token/token"] + w.get("class_token/embedding", 0)
    x = torch.cat([token.expand(batch, 1, channels), x], dim=1)
    for j in range(depth):
        name = f"blocks_{j}"
        y = attention(w, f"{name}/attn", norm(w, f"{name}/norm1", x), heads)
        x = x + y * w.get(f"{name}/scale1/gamma", 1.0)
        y = mlp(w, f"{name}/mlp", norm(w, f"{name}/norm2", x))
        x = x + y * w.get(f"{name}/scale2/gamma", 1.0)
    if average:
        return dense(w, "head", norm(w, "fc_norm", x[:, 1:].mean(1)))
    return dense(w, "head", norm(w, "norm", x)[:, 0])


def batch_norm(w, name, x):
    mean, variance = w[f"{name}/moving_mean"], w[f"{name}/moving_variance"]
    y = (x - mean) / torch.sqrt(variance + 1e-5)
    return y * w[f"{name}/gamma"] + w[f"{name}/beta"]


def bottleneck(w, name, x, stride, activation, groups):
    y = conv(w, f"{name}/conv1", x)
    if f"{name}/norm1/gamma" in w:
        y = batch_norm(w, f"{name}/norm1", y)
    # The grouped convolution, group by group.
    kernels = w[f"{name}/conv2/kernel"].chunk(groups, dim=-1)
    parts = [
        conv({"conv2/kernel": kernel}, "conv2", part, stride, padding=1)
        for kernel, part in zip(kernels, activation(y).chunk(groups, dim=-1))
    ]
    y = activation(batch_norm(w, f"{name}/norm2", torch.cat(parts, dim=-1)))
    if f"{name}/squeeze/fc1/kernel" in w:
        gates = dense(w, f"{name}/squeeze/fc2", F.relu(dense(w, f"{name}/squeeze/fc1", y.mean((1, 2)))))
        y = y * torch.sigmoid(gates)[:, None, None]
    y = batch_norm(w, f"{name}/norm3", conv(w, f"{name}/conv3", y))
    if f"{name}/shortcut_conv/kernel" in w:
        x = batch_norm(w, f"{name}/shortcut_norm", conv(w, f"{name}/shortcut_conv", x, stride))
    return activation(x + y)


def basic(w, name, x, stride, activation):
    y = activation(batch_norm(w, f"{name}/norm1", conv(w, f"{name}/conv1", x, stride, padding=1)))
    y = batch_norm(w, f"{name}/norm2", conv(w, f"{name}/conv2", y, padding=1))
    if f"{name}/shortcut_conv/kernel" in w:
        x = batch_norm(w, f"{name}/shortcut_norm", conv(w, f"{name}/shortcut_conv", x, stride))
    return activation(x + y)


def preact(w, x, depths, activation=F.relu, same=False, activated=True):
    x = conv(w, "stem", x, padding=1)
    for i, depth in enumerate(depths):
        for j in range(depth):
            name, stride = f"{'groups' if same else 'stages'}_{i}_blocks_{j}", 2 if i > 0 and j == 0 else 1
            y = activation(batch_norm(w, f"{name}/norm1", x))
            if f"{name}/shortcut/kernel" in w:
                x = strided(w, f"{name}/shortcut", y if activated else x, stride, same)
            y = strided(w, f"{name}/conv1", y, stride, same)
            y = conv(w, f"{name}/conv2", activation(batch_norm(w, f"{name}/norm2", y)), padding=1)
            x = x + y
    if "norm/gamma" in w:
        x = activation(batch_norm(w, "norm", x))
    return dense(w, "head", x.mean((1, 2)))


def strided(w, name, x, stride, same):
    """Convolution of a kernel of 1x1 or 3x3 with zeros on each side, or as few as TensorFlow's rule wants."""
    size = w[f"{name}/kernel"].shape[0]
    if not same:
        return conv(w, name, x, stride, padding=size // 2)
    margins = [max((-(-n // stride) - 1) * stride + size - n, 0) for n in x.shape[1:3]]
    (top, left), (bottom, right) = ([n // 2 for n in margins], [n - n // 2 for n in margins])
    return conv(w, name, F.pad(x, (0, 0, left, right, top, bottom)), stride)


def resnet(w, x, depths, pool, activation=F.relu, groups=1, stem_activation=F.relu):
    x = stem_activation(batch_norm(w, "stem/norm", conv(w, "stem/conv", x, 2, padding=3)))
    if pool:
        x = F.max_pool2d(x.permute(0, 3, 1, 2), 3, 2, padding=1).permute(0, 2, 3, 1)
    for i, depth in enumerate(depths):
        for j in range(depth):
            stride = 2 if j == 0 and (i > 0 or not pool) else 1
            name = f"stages_{i}_blocks_{j}"
            if f"{name}/conv3/kernel" in w:
                x = bottleneck(w, name, x, stride, activation, groups)
            else:
                x = basic(w, name, x, stride, activation)
    return dense(w, "head", x.mean((1, 2)))


def layer_scale(w, name, x):
    return x * w[f"{name}/gamma"]


def xcit(w, x, depth, class_depth, heads):
    for i in range(4):
        x = conv(w, f"stem/conv_{i}", x if i == 0 else F.gelu(x), 2, padding=1)
        x = batch_norm(w, f"stem/norm_{i}", x)
    batch, rows, columns, channels = x.shape
    codes = []
    for n in (rows, columns):
        position = torch.arange(1, n + 1) / (n + 1e-6) * 2 * torch.pi
        angle = position[:, None] / 10_000 ** (torch.arange(0, 32, 2) / 32)
        codes.append(torch.stack([angle.sin(), angle.cos()], dim=-1).reshape(n, 32))
    code = torch.cat([codes[0][:, None].expand(-1, columns, -1), codes[1][None].expand(rows, -1, -1)], dim=-1)
    x = x + dense(w, "position/proj", code)
    for j in range(depth):
        name = f"blocks_{j}"
        y = dense(w, f"{name}/attn/qkv", norm(w, f"{name}/norm1", x)).reshape(batch, rows * columns, 3, heads, -1)
        q, k, v = y.permute(2, 0, 3, 4, 1)  # each (batch, heads, channels of a head, positions)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        scores = q @ k.transpose(-1, -2) * w[f"{name}/attn/temperature"][:, None, None]
        y = (scores.softmax(-1) @ v).permute(0, 3, 1, 2).reshape(batch, rows, columns, channels)
        x = x + layer_scale(w, f"{name}/scale1", dense(w, f"{name}/attn/proj", y))
        y = conv(w, f"{name}/local/conv1", norm(w, f"{name}/norm3", x), padding=1, groups=channels)
        y = conv(w, f"{name}/local/conv2", batch_norm(w, f"{name}/local/norm", F.gelu(y)), padding=1, groups=channels)
        x = x + layer_scale(w, f"{name}/scale3", y)
        x = x + layer_scale(w, f"{name}/scale2", mlp(w, f"{name}/mlp", norm(w, f"{name}/norm2", x)))
    x = torch.cat([w["class_token/token"].expand(batch, 1, channels), x.reshape(batch, -1, channels)], dim=1)
    for j in range(class_depth):
        name = f"class_blocks_{j}"
        normed = norm(w, f"{name}/norm1", x)
        q, k, v = (
            dense(w, f"{name}/attn/{part}", tokens).reshape(batch, -1, heads, channels // heads).transpose(1, 2)
            for part, tokens in (("q", normed[:, :1]), ("k", normed), ("v", normed))
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, 1, channels)
        y = torch.cat([dense(w, f"{name}/attn/proj", y), normed[:, 1:]], dim=1)
        x = norm(w, f"{name}/norm2", x + layer_scale(w, f"{name}/scale1", y))
        y = torch.cat([layer_scale(w, f"{name}/scale2", mlp(w, f"{name}/mlp", x[:, :1])), x[:, 1:]], dim=1)
        x = x + y
    return dense(w, "head", norm(w, "norm", x)[:, 0])


def window_attention(w, name, x, heads, window, shifted):
    """Attention of all positions of the padded map to all, of which a mask leaves those in the same window."""
    batch, rows, columns, channels = x.shape
    shifts = [window // 2 if shifted and n > window else 0 for n in (rows, columns)]
    padded = [-(-n // window) * window for n in (rows, columns)]
    x = torch.roll(x, [-s for s in shifts], (1, 2))
    x = F.pad(x, (0, 0, 0, padded[1] - columns, 0, padded[0] - rows)).reshape(batch, -1, channels)
    coordinates = torch.cartesian_prod(*(torch.arange(n) for n in padded))
    allowed, offset = True, []
    for p, n, shift, total in zip(coordinates.T, (rows, columns), shifts, padded):
        same_window = p[:, None] // window == p // window
        # Positions that came around the border, and margins of a map smaller than a window, keep to themselves.
        beyond = p >= (n if n < window else total - shift)
        allowed = allowed & same_window & (beyond[:, None] == beyond)
        offset.append((p[:, None] - p).clamp(1 - window, window - 1) + window - 1)
    bias = w[f"{name}/bias_table"].reshape(2 * window - 1, 2 * window - 1, heads)[offset[0], offset[1]]
    mask = torch.where(allowed, bias.permute(2, 0, 1), -torch.inf)
    q, k, v = dense(w, f"{name}/qkv", x).reshape(batch, -1, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(batch, *padded, channels)
    y = dense(w, f"{name}/proj", y)[:, :rows, :columns]
    return torch.roll(y, shifts, (1, 2))


def swin(w, x, depths, heads, windows, eps=1e-5):
    x = norm(w, "stem/norm", conv(w, "stem/proj", x, 4), eps)
    for i, depth in enumerate(depths):
        if i > 0:
            name = f"stages_{i}_downsample"
            x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
            parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
            x = norm(w, f"{name}/norm", torch.cat(parts, dim=-1), eps) @ w[f"{name}/proj/kernel"]
        for j in range(depth):
            name = f"stages_{i}_blocks_{j}"
            y = norm(w, f"{name}/norm1", x, eps)
            x = x + window_attention(w, f"{name}/attn", y, heads[i], windows[i], shifted=j % 2 == 1)
            x = x + mlp(w, f"{name}/mlp", norm(w, f"{name}/norm2", x, eps))
    return dense(w, "head", norm(w, "norm", x, eps).mean((1, 2)))
