"""The PyTorch side of the comparison: timm's models, their ConvStem siblings, and those that timm does not have.

Modules are named as in the published checkpoints. Nothing here knows of Keras.
"""

from functools import partial

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


class TradesBlock(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.convShortcut = nn.Conv2d(channels, width, 1, stride, bias=False) if channels != width else None

    def forward(self, x):
        activated = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return y + (x if self.convShortcut is None else self.convShortcut(activated))


def _stages(block, channels, depths, widths):
    """Sequences of blocks, the first of each but of the first with stride 2."""
    for i, (depth, width) in enumerate(zip(depths, widths)):
        strides = [1 if i == 0 else 2] + [1] * (depth - 1)
        inputs = [channels] + [width] * (depth - 1)
        yield nn.Sequential(*(block(n, width, stride) for n, stride in zip(inputs, strides)))
        channels = width


class TradesWideResNet(nn.Module):
    """As in github.com/yaodongyu/TRADES; the mean over the map instead of a pooling of 8x8, at 32 pixels the same."""

    def __init__(self, depths, dims):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        for i, stage in enumerate(_stages(TradesBlock, 16, depths, dims), start=1):
            group = nn.Module()
            group.layer = stage
            self.add_module(f"block{i}", group)
        self.bn1 = nn.BatchNorm2d(dims[-1])
        self.fc = nn.Linear(dims[-1], NUM_CLASSES)

    def forward(self, x):
        x = self.conv1(x)
        for group in (self.block1, self.block2, self.block3):
            x = group.layer(x)
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


class KuangliuBlock(nn.Module):
    """`activated`: what the shortcut's convolution is applied to."""

    activated = True

    def __init__(self, channels, width, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            self.shortcut.append(nn.Conv2d(channels, width, 1, stride, bias=False))

    def forward(self, x):
        y = F.relu(self.bn1(x))
        shortcut = x if not len(self.shortcut) else self.shortcut(y if self.activated else x)
        return self.conv2(F.relu(self.bn2(self.conv1(y)))) + shortcut


class WongBlock(KuangliuBlock):
    activated = False


class KuangliuPreActResNet(nn.Module):
    """As in github.com/kuangliu/pytorch-cifar; with `norm` as in github.com/locuslab/robust_overfitting."""

    def __init__(self, block, norm, depths=(2, 2, 2, 2), dims=(64, 128, 256, 512), stem_channels=64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem_channels, 3, padding=1, bias=False)
        for i, stage in enumerate(_stages(block, stem_channels, depths, dims), start=1):
            self.add_module(f"layer{i}", stage)
        if norm:
            self.bn = nn.BatchNorm2d(dims[-1])
        self.linear = nn.Linear(dims[-1], NUM_CLASSES)

    def forward(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        if hasattr(self, "bn"):
            x = F.relu(self.bn(x))
        return self.linear(x.mean((2, 3)))


class SameConv(nn.Conv2d):
    """Zeros at the right and at the bottom alone where the stride is 2: "same" padding of maps of even sides."""

    def __init__(self, channels, width, size, stride):
        super().__init__(channels, width, size, stride, bias=False)
        self.margins = {(1, 1): (0, 0, 0, 0), (1, 2): (0, 0, 0, 0), (3, 1): (1, 1, 1, 1), (3, 2): (0, 1, 0, 1)}[
            size, stride
        ]

    def forward(self, x):
        return super().forward(F.pad(x, self.margins))


class DeepMindBlock(nn.Module):
    """`activated`: what the shortcut's convolution is applied to."""

    first, second, shortcut_size, activated = "conv_0", "conv_1", 1, True

    def __init__(self, channels, width, stride):
        super().__init__()
        self.batchnorm_0 = nn.BatchNorm2d(channels)
        self.add_module(self.first, SameConv(channels, width, 3, stride))
        self.batchnorm_1 = nn.BatchNorm2d(width)
        self.add_module(self.second, SameConv(width, width, 3, 1))
        self.shortcut = None
        if stride != 1 or channels != width:
            self.shortcut = SameConv(channels, width, self.shortcut_size, stride)

    def forward(self, x):
        y = F.silu(self.batchnorm_0(x))
        shortcut = x if self.shortcut is None else self.shortcut(y if self.activated else x)
        y = F.silu(self.batchnorm_1(getattr(self, self.first)(y)))
        return getattr(self, self.second)(y) + shortcut


class DeepMindNarrowBlock(DeepMindBlock):
    first, second, shortcut_size, activated = "conv_2d_1", "conv_2d_2", 3, False


class DeepMindWideResNet(nn.Module):
    """As in github.com/google-deepmind/deepmind-research, adversarial_robustness, without its normalisation."""

    def __init__(self, depths, dims):
        super().__init__()
        self.init_conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.layer = nn.Sequential()
        for stage in _stages(DeepMindBlock, 16, depths, dims):
            group = nn.Sequential()
            group.add_module("block", stage)
            self.layer.append(group)
        self.batchnorm = nn.BatchNorm2d(dims[-1])
        self.logits = nn.Linear(dims[-1], NUM_CLASSES)

    def forward(self, x):
        return self.logits(F.silu(self.batchnorm(self.layer(self.init_conv(x)))).mean((2, 3)))


class DeepMindPreActResNet(nn.Module):
    def __init__(self, depths=(2, 2, 2, 2), dims=(64, 128, 256, 512), stem_channels=64):
        super().__init__()
        self.conv_2d = nn.Conv2d(3, stem_channels, 3, padding=1, bias=False)
        for i, stage in enumerate(_stages(DeepMindNarrowBlock, stem_channels, depths, dims)):
            self.add_module(f"layer_{i}", stage)
        self.batchnorm = nn.BatchNorm2d(dims[-1])
        self.logits = nn.Linear(dims[-1], NUM_CLASSES)

    def forward(self, x):
        x = self.layer_3(self.layer_2(self.layer_1(self.layer_0(self.conv_2d(x)))))
        return self.logits(F.silu(self.batchnorm(x)).mean((2, 3)))


class PaperViT(nn.Module):
    """A timm vision transformer of 224 pixels whose position embedding is resized as in the paper's evaluation."""

    def __init__(self, vit):
        super().__init__()
        self.vit = vit

    def state_dict(self):
        return self.vit.state_dict()

    def load_state_dict(self, tensors):
        return self.vit.load_state_dict(tensors)

    def forward(self, x):
        vit = self.vit
        patch, native = vit.patch_embed.patch_size[0], vit.patch_embed.grid_size[0]
        grid = [size // patch for size in x.shape[2:]]
        embedding = vit.pos_embed
        if grid != [native, native]:
            extra = embedding.shape[1] - native**2
            patches = embedding[:, extra:].reshape(1, native, native, -1).permute(0, 3, 1, 2)
            scale = [(n + 0.1) / native for n in grid]
            patches = F.interpolate(patches, scale_factor=scale, mode="bicubic", recompute_scale_factor=False)
            assert list(patches.shape[2:]) == grid
            embedding = torch.cat([embedding[:, :extra], patches.flatten(2).transpose(1, 2)], dim=1)
        tokens = vit.patch_embed.proj(x).flatten(2).transpose(1, 2)
        class_token = vit.cls_token.expand(len(x), 1, -1)
        if vit.no_embed_class:
            tokens = torch.cat([class_token, tokens + embedding], dim=1)
        else:
            tokens = torch.cat([class_token, tokens], dim=1) + embedding
        return vit.forward_head(vit.norm(vit.blocks(tokens)))


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

    def __init__(self, name):
        super().__init__()
        self.swin = _timm(name)

    def state_dict(self):
        return self.swin.state_dict()

    def load_state_dict(self, tensors):
        return self.swin.load_state_dict(tensors)

    def forward(self, x):
        self.swin.set_input_size(tuple(x.shape[2:]), window_size=7)
        return self.swin(x)


def _mimir(window_size, dim, depths=(2, 2, 18, 2), num_heads=None):
    """As github.com/xiaoyunxxy/MIMIR makes them, at 224 pixels alone."""
    from timm.models.swin_transformer import SwinTransformer

    norm_layer = partial(nn.LayerNorm, eps=1e-6)
    heads = num_heads or [dim // 32 * 2**i for i in range(4)]
    return SwinTransformer(
        embed_dim=dim,
        depths=depths,
        num_heads=heads,
        window_size=window_size,
        norm_layer=norm_layer,
        num_classes=NUM_CLASSES,
    )


class MeanSparse(nn.Module):
    """As in github.com/SPIN-UMass/MeanSparse, once its statistics are there; channels last or, of maps, first."""

    def __init__(self, channels, first=False):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.zeros(channels))
        self.register_buffer("threshold", torch.tensor(0.0))
        self.register_buffer("flag_update_statistics", torch.tensor(0))
        self.register_buffer("batch_num", torch.tensor(0.0))
        self.shape = (-1, 1, 1) if first else (-1,)

    def forward(self, x):
        mean = self.running_mean.reshape(self.shape)
        radius = self.threshold * self.running_var.reshape(self.shape).sqrt()
        return torch.where((x - mean).abs() < radius, mean, x)


def _sparse_convnext(depths=(3, 3, 27, 3), dims=(192, 384, 768, 1536)):
    from timm.models.convnext import ConvNeXt

    model = ConvNeXt(depths=depths, dims=dims, num_classes=NUM_CLASSES)
    for stage, dim in zip(model.stages, dims):
        for block in stage.blocks:
            block.mlp.act = nn.Sequential(MeanSparse(4 * dim), block.mlp.act)
            block.drop_path = nn.Sequential(block.drop_path, MeanSparse(dim, first=True))
    return model


def _sparse_swin(dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48)):
    """At 224 pixels alone."""
    from timm.models.swin_transformer import SwinTransformer

    class SparseMlp(nn.Module):
        def __init__(self, mlp):
            super().__init__()
            self.fc1, self.act, self.fc2 = mlp.fc1, mlp.act, mlp.fc2
            self.meansparse1 = MeanSparse(mlp.fc1.out_features)
            self.meansparse2 = MeanSparse(mlp.fc2.out_features)

        def forward(self, x):
            return self.meansparse2(self.fc2(self.act(self.meansparse1(self.fc1(x)))))

    def forward(block, x):
        x = block.meansparse1(x + block._attn(block.norm1(x)))
        return block.meansparse2(x + block.mlp(block.norm2(x)))

    model = SwinTransformer(embed_dim=dim, depths=depths, num_heads=num_heads, num_classes=NUM_CLASSES)
    for layer in model.layers:
        for block in layer.blocks:
            block.mlp = SparseMlp(block.mlp)
            block.meansparse1, block.meansparse2 = MeanSparse(block.dim), MeanSparse(block.dim)
            block.forward = partial(forward, block)
    return model


def _xcit(dim, num_heads, depth=12):
    """Of 12 blocks timm has the smallest alone."""
    from timm.models.xcit import Xcit

    sizes = {"embed_dim": dim, "depth": depth, "num_heads": num_heads}
    return Xcit(patch_size=16, eta=1.0, tokens_norm=True, num_classes=NUM_CLASSES, **sizes)


def _average_vit(dim, num_heads, depth, mlp_ratio=4.0):
    """As github.com/UCSC-VLAA/AdvXL makes them: patches of 14 pixels, `global_pool="avg"`."""
    from timm.models.vision_transformer import VisionTransformer

    sizes = {"embed_dim": dim, "depth": depth, "num_heads": num_heads, "mlp_ratio": mlp_ratio}
    return PaperViT(VisionTransformer(patch_size=14, global_pool="avg", fc_norm=True, num_classes=NUM_CLASSES, **sizes))


# By name; of those that take numbers as keywords the full ones are given here, others (`SHRUNK`) make them small.
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
    "convnext_large_meansparse": _sparse_convnext,
    "convnextv2_atto": lambda: _convnext("convnextv2_atto"),
    "convnextv2_large": lambda: _convnext("convnextv2_large"),
    "vit_large_patch14": partial(_average_vit, dim=1024, num_heads=16, depth=24),
    "vit_huge_patch14": partial(_average_vit, dim=1280, num_heads=16, depth=32),
    "vit_giant_patch14": partial(_average_vit, dim=1408, num_heads=16, depth=40, mlp_ratio=48 / 11),
    "resnet18": lambda: _timm("resnet18"),
    "resnet101": lambda: _timm("resnet101"),
    "resnet152": lambda: _timm("resnet152"),
    "wide_resnet50_2": lambda: _timm("wide_resnet50_2"),
    "resnet50": lambda: _timm("resnet50"),
    "resnet50_gelu": lambda: _timm("resnet50", act_layer="gelu"),
    "xcit_small": lambda: _timm("xcit_small_12_p16_224"),
    "xcit_medium": partial(_xcit, dim=512, num_heads=8),
    "xcit_large": partial(_xcit, dim=768, num_heads=16),
    "swin_small": lambda: SizedSwin("swin_small_patch4_window7_224"),
    "swin_base": lambda: SizedSwin("swin_base_patch4_window7_224"),
    "swin_large": lambda: SizedSwin("swin_large_patch4_window7_224"),
    "swin_large_meansparse": _sparse_swin,
    "swin_base_mimir": partial(_mimir, 7, dim=128),
    "swin_large_mimir": partial(_mimir, 14, dim=192),
    "robarch_small": lambda: RobArch((5, 8, 13, 1), (288, 576, 1120, 2160)),
    "robarch_medium": lambda: RobArch((7, 11, 18, 1), (336, 672, 1328, 2624)),
    "robarch_large": lambda: RobArch((7, 11, 18, 1), (512, 1024, 2016, 4032)),
    "wide_resnet28_10": partial(TradesWideResNet, depths=(4, 4, 4), dims=(160, 320, 640)),
    "wide_resnet28_10_swish": partial(DeepMindWideResNet, depths=(4, 4, 4), dims=(160, 320, 640)),
    "wide_resnet34_10": partial(TradesWideResNet, depths=(5, 5, 5), dims=(160, 320, 640)),
    "wide_resnet34_10_swish": partial(DeepMindWideResNet, depths=(5, 5, 5), dims=(160, 320, 640)),
    "wide_resnet70_16": partial(TradesWideResNet, depths=(11, 11, 11), dims=(256, 512, 1024)),
    "wide_resnet70_16_swish": partial(DeepMindWideResNet, depths=(11, 11, 11), dims=(256, 512, 1024)),
    "preact_resnet18": partial(KuangliuPreActResNet, WongBlock, False),
    "preact_resnet18_norm": partial(KuangliuPreActResNet, KuangliuBlock, True),
    "preact_resnet18_swish": DeepMindPreActResNet,
}
