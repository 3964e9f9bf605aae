"""The PyTorch side of the comparison: timm's models, their ConvStem siblings, and those that timm does not have.

Modules are named as in the published checkpoints. Nothing here knows of Keras.
"""

import torch
from torch import nn
from torch.nn import functional as F

NUM_CLASSES = 10


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of (batch, channels, height, width)."""

    def __init__(self, channels):
        super().__init__(channels, eps=1e-6)

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvStem(nn.Module):
    """3x3 convolutions of the given channels and strides with LayerNorm and GELU, then perhaps a 1x1 convolution."""

    def __init__(self, channels, strides, out_channels=None):
        super().__init__()
        layers, last = [], 3
        for width, stride in zip(channels, strides):
            layers += [nn.Conv2d(last, width, 3, stride, padding=1), LayerNorm2d(width), nn.GELU()]
            last = width
        if out_channels is not None:
            layers.append(nn.Conv2d(last, out_channels, 1))
        self.stem = nn.Sequential(*layers)

    def forward(self, x):
        return self.stem(x)


class IsotropicBlock(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)

    def forward(self, x):
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        return x + self.pwconv2(F.gelu(self.pwconv1(y))).permute(0, 3, 1, 2)


class Isotropic(nn.Module):
    """Isotropic ConvNeXt-S."""

    def __init__(self, conv_stem):
        super().__init__()
        dim = 384
        self.stem = ConvStem((48, 96, 192, 384), (2, 2, 2, 2), dim) if conv_stem else nn.Conv2d(3, dim, 16, 16)
        self.blocks = nn.Sequential(*(IsotropicBlock(dim) for _ in range(18)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, NUM_CLASSES)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.stem(x)).mean((2, 3))))


class SqueezeExcite(nn.Module):
    def __init__(self, channels, hidden):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


def _conv_and_norm(*args, **kwargs):
    conv = nn.Conv2d(*args, bias=False, **kwargs)
    return conv, nn.BatchNorm2d(conv.out_channels)


class RobArchBlock(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        inner = width // 4
        self.proj = None
        if stride != 1 or channels != width:
            self.proj = nn.Sequential(*_conv_and_norm(channels, width, 1, stride))
        self.F = nn.Sequential()
        self.F.add_module("a", nn.Sequential(nn.Conv2d(channels, inner, 1, bias=False), nn.SiLU()))
        conv = _conv_and_norm(inner, inner, 3, stride=stride, padding=1, groups=2)
        self.F.add_module("b", nn.Sequential(*conv, nn.SiLU()))
        self.F.add_module("se", SqueezeExcite(inner, round(0.25 * channels)))
        self.F.add_module("c", nn.Sequential(*_conv_and_norm(inner, width, 1)))

    def forward(self, x):
        return F.silu(self.F(x) + (x if self.proj is None else self.proj(x)))


class RobArchStem(nn.Module):
    def __init__(self, channels):
        super().__init__()
        layers = nn.Sequential(*_conv_and_norm(3, channels, 7, stride=2, padding=3), nn.ReLU())
        self.stem = nn.Sequential()
        self.stem.add_module("stem", layers)

    def forward(self, x):
        return self.stem(x)


class RobArch(nn.Module):
    def __init__(self, depths, widths):
        super().__init__()
        channels = 96
        self.stem = RobArchStem(channels)
        self.stages = nn.Sequential()
        for i, (depth, width) in enumerate(zip(depths, widths), start=1):
            stage = nn.Sequential()
            for j in range(depth):
                stage.add_module(f"stage{i}-block{j}", RobArchBlock(channels, width, 2 if j == 0 else 1))
                channels = width
            self.stages.add_module(f"stage{i}", stage)
        self.fc = nn.Linear(channels, NUM_CLASSES)

    def forward(self, x):
        return self.fc(self.stages(self.stem(x)).mean((2, 3)))


class PaperViT(nn.Module):
    """A timm vision transformer whose position embedding is resized as in the paper's evaluation."""

    def __init__(self, vit):
        super().__init__()
        self.vit = vit

    def state_dict(self):
        return self.vit.state_dict()

    def load_state_dict(self, tensors):
        return self.vit.load_state_dict(tensors)

    def forward(self, x):
        vit = self.vit
        grid = [size // 16 for size in x.shape[2:]]
        embedding = vit.pos_embed
        if grid != [14, 14]:
            extra = embedding.shape[1] - 196
            patches = embedding[:, extra:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
            scale = [(n + 0.1) / 14 for n in grid]
            patches = F.interpolate(patches, scale_factor=scale, mode="bicubic", recompute_scale_factor=False)
            assert list(patches.shape[2:]) == grid
            embedding = torch.cat([embedding[:, :extra], patches.flatten(2).transpose(1, 2)], dim=1)
        tokens = vit.patch_embed.proj(x).flatten(2).transpose(1, 2)
        class_token = vit.cls_token.expand(len(x), 1, -1)
        if vit.no_embed_class:
            tokens = torch.cat([class_token, tokens + embedding], dim=1)
        else:
            tokens = torch.cat([class_token, tokens], dim=1) + embedding
        return vit.head(vit.norm(vit.blocks(tokens))[:, 0])


def _timm(name, **kwargs):
    import timm

    return timm.create_model(name, num_classes=NUM_CLASSES, **kwargs)


def _convnext(name, stem=None):
    model = _timm(name)
    if stem is not None:
        model.stem = stem
    return model


def _vit(name, conv_stem=None):
    vit = _timm(name)
    if conv_stem is not None:
        vit.patch_embed.proj = ConvStem(conv_stem, (2, 2, 2, 2), vit.embed_dim)
    return PaperViT(vit)


class SizedSwin(nn.Module):
    """timm's Swin made anew for the size of each batch: it fixes at creation where windows shift."""

    def __init__(self):
        super().__init__()
        self.swin = _timm("swin_base_patch4_window7_224")

    def state_dict(self):
        return self.swin.state_dict()

    def load_state_dict(self, tensors):
        return self.swin.load_state_dict(tensors)

    def forward(self, x):
        self.swin.set_input_size(tuple(x.shape[2:]), window_size=7)
        return self.swin(x)


MODELS = {
    "convnext_atto": lambda: _convnext("convnext_atto"),
    "convnext_atto_convstem": lambda: _convnext("convnext_atto", ConvStem((20, 40), (2, 2))),
    "convnext_tiny": lambda: _convnext("convnext_tiny"),
    "convnext_tiny_convstem": lambda: _convnext("convnext_tiny", ConvStem((48, 96), (2, 2))),
    "convnext_small": lambda: _convnext("convnext_small"),
    "convnext_small_convstem": lambda: _convnext("convnext_small", ConvStem((48, 96), (2, 2))),
    "convnext_base": lambda: _convnext("convnext_base"),
    "convnext_base_convstem": lambda: _convnext("convnext_base", ConvStem((64, 96, 128), (2, 2, 1))),
    "convnext_large": lambda: _convnext("convnext_large"),
    "convnext_large_convstem": lambda: _convnext("convnext_large", ConvStem((96, 144, 192), (2, 2, 1))),
    "convnext_isotropic_small": lambda: Isotropic(conv_stem=False),
    "convnext_isotropic_small_convstem": lambda: Isotropic(conv_stem=True),
    "vit_tiny": lambda: _vit("vit_tiny_patch16_224"),
    "vit_tiny_convstem": lambda: _vit("vit_tiny_patch16_224", (24, 48, 96, 192)),
    "vit_small": lambda: _vit("vit_small_patch16_224"),
    "vit_small_convstem": lambda: _vit("vit_small_patch16_224", (48, 96, 192, 384)),
    "vit_medium": lambda: _vit("deit3_medium_patch16_224"),
    "vit_medium_convstem": lambda: _vit("deit3_medium_patch16_224", (48, 96, 192, 384)),
    "vit_base": lambda: _vit("vit_base_patch16_224"),
    "vit_base_convstem": lambda: _vit("vit_base_patch16_224", (48, 96, 192, 384)),
    "resnet50": lambda: _timm("resnet50"),
    "resnet50_gelu": lambda: _timm("resnet50", act_layer=torch.nn.GELU),
    "xcit_small": lambda: _timm("xcit_small_12_p16_224"),
    "swin_base": SizedSwin,
    "robarch_small": lambda: RobArch((5, 8, 13, 1), (288, 576, 1120, 2160)),
    "robarch_medium": lambda: RobArch((7, 11, 18, 1), (336, 672, 1328, 2624)),
    "robarch_large": lambda: RobArch((7, 11, 18, 1), (512, 1024, 2016, 4032)),
}
