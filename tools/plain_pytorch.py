"""What the benchmark compares with: the same models and the same training step, written in PyTorch without Keras.

Written as one writes them in PyTorch: `torch.nn` modules, eager, channels-last memory format, fused attention. The
numbers of each architecture come from keras_robust's model table, and the modules are called as in timm, so that
`load_state_dict` takes what `keras_robust.weights.save` writes.
"""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F


def named(**modules):
    return nn.Sequential(OrderedDict(modules))


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of (batch, channels, height, width)."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def conv_stem(widths, stride, out_channels=None):
    layers, channels, total = [], 3, 1
    for width in widths:
        step = 2 if total < stride else 1
        layers += [nn.Conv2d(channels, width, 3, step, padding=1), LayerNorm2d(width, eps=1e-6), nn.GELU()]
        channels, total = width, total * step
    if out_channels is not None:
        layers.append(nn.Conv2d(channels, out_channels, 1))
    return named(stem=nn.Sequential(*layers))


def mlp(dim):
    return named(fc1=nn.Linear(dim, 4 * dim), act=nn.GELU(), fc2=nn.Linear(4 * dim, dim))


class ConvNeXtBlock(nn.Module):
    def __init__(self, dim, layer_scale):
        super().__init__()
        self.conv_dw = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = mlp(dim)
        self.gamma = None if layer_scale is None else nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x):
        y = self.mlp(self.norm(self.conv_dw(x).permute(0, 2, 3, 1)))
        if self.gamma is not None:
            y = y * self.gamma
        return x + y.permute(0, 3, 1, 2)


class PoolAndClassify(nn.Module):
    def __init__(self, dim, num_classes):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.fc = nn.Linear(dim, num_classes)

    def forward(self, x):
        return self.fc(self.norm(x.mean((2, 3))))


class Attention(nn.Module):
    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        y = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, dim))


class LayerScale(nn.Module):
    def __init__(self, dim, init):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x):
        return x * self.gamma


class TransformerBlock(nn.Module):
    def __init__(self, dim, num_heads, layer_scale):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = mlp(dim)
        self.ls1, self.ls2 = (nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale) for _ in range(2))

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """At the native resolution."""

    def __init__(self, row, num_classes, input_size):
        super().__init__()
        tokens = (input_size // 16) ** 2 + row.class_position
        self.patch_embed = named(proj=stem_of_16(row))
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, row.dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, tokens, row.dim))
        blocks = (TransformerBlock(row.dim, row.num_heads, row.layer_scale_init) for _ in range(row.depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(row.dim, eps=1e-6)
        self.head = nn.Linear(row.dim, num_classes)
        self.class_position = row.class_position

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        token = self.cls_token.expand(len(x), -1, -1)
        if self.class_position:
            x = torch.cat([token, x], dim=1) + self.pos_embed
        else:
            x = torch.cat([token, x + self.pos_embed], dim=1)
        return self.head(self.norm(self.blocks(x)[:, 0]))


def convnext(row, num_classes, input_size):
    if row.conv_stem is None:
        stem = nn.Sequential(nn.Conv2d(3, row.dims[0], 4, 4), LayerNorm2d(row.dims[0], eps=1e-6))
    else:
        stem = conv_stem(row.conv_stem, stride=4)
    stages, channels = [], None
    for depth, dim in zip(row.depths, row.dims):
        downsample = nn.Identity()
        if channels is not None:
            downsample = nn.Sequential(LayerNorm2d(channels, eps=1e-6), nn.Conv2d(channels, dim, 2, 2))
        blocks = nn.Sequential(*(ConvNeXtBlock(dim, row.layer_scale_init) for _ in range(depth)))
        stages.append(named(downsample=downsample, blocks=blocks))
        channels = dim
    return named(stem=stem, stages=nn.Sequential(*stages), head=PoolAndClassify(channels, num_classes))


def stem_of_16(row):
    if row.conv_stem is None:
        return nn.Conv2d(3, row.dim, 16, 16)
    return conv_stem(row.conv_stem, stride=16, out_channels=row.dim)


def isotropic_convnext(row, num_classes, input_size):
    blocks = nn.Sequential(*(ConvNeXtBlock(row.dim, None) for _ in range(row.depth)))
    return named(stem=stem_of_16(row), blocks=blocks, head=PoolAndClassify(row.dim, num_classes))


FAMILIES = {"ConvNeXt": convnext, "IsotropicConvNeXt": isotropic_convnext, "ViT": VisionTransformer}


def create(row, num_classes, input_size):
    """The model of a row of keras_robust's table, or None for a family or a kind that is not written here."""
    if getattr(row, "patch_size", 16) != 16 or getattr(row, "mean_sparse", False):
        return None
    family = FAMILIES.get(type(row).__name__)
    return family and family(row, num_classes, input_size).to(memory_format=torch.channels_last)


def autocast(device, precision):
    """The context of a forward pass in 16 bits as published, or in float32."""
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
    return torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None)


def apgd(model, x, y, eps, n_iter, precision="float32"):
    """The Linf attack of training (Croce & Hein 2020): the point of highest loss of all visited, no random start.

    Without the control of the step size, which has no effect below three iterations and costs next to nothing.
    """

    def project(z):
        return torch.clamp(torch.minimum(torch.maximum(z, x - eps), x + eps), 0, 1)

    def loss_of(z):
        with autocast(x.device.type, precision):
            logits = model(z)
        return F.cross_entropy(logits.float(), y, reduction="none")

    def loss_and_gradient(z):
        z = z.detach().requires_grad_()
        losses = loss_of(z)
        (gradient,) = torch.autograd.grad(losses.sum(), z)
        return losses.detach(), gradient

    best, previous, current = x, x, x
    best_loss, gradient = loss_and_gradient(x)
    for i in range(n_iter):
        z = project(current + 2 * eps * gradient.sign())
        a = 1.0 if i == 0 else 0.75
        previous, current = current, project(current + a * (z - current) + (1 - a) * (current - previous))
        if i < n_iter - 1:
            loss, gradient = loss_and_gradient(current)
        else:
            with torch.no_grad():
                loss = loss_of(current)
        rises = loss > best_loss
        best = torch.where(rises[:, None, None, None], current, best)
        best_loss = torch.where(rises, loss, best_loss)
    return best


def training_step(model, optimizer, x, y, eps, n_iter, precision="float32"):
    """Attack the batch in inference mode, then update the weights on the adversarial images; returns the loss.

    With `n_iter` 0 the images are trained on as they are.
    """
    if n_iter:
        model.eval()
        x = apgd(model, x, y, eps, n_iter, precision)
    model.train()
    optimizer.zero_grad()
    with autocast(x.device.type, precision):
        logits = model(x)
    loss = F.cross_entropy(logits.float(), y)
    loss.backward()
    optimizer.step()
    return loss.detach()
