"""Building blocks of the models, as Keras layers."""

from keras_robust.layers.activations import gelu
from keras_robust.layers.attention import Attention
from keras_robust.layers.convnext import ConvNeXtBlock, ConvNeXtDownsample
from keras_robust.layers.convolution import PaddedConv2D
from keras_robust.layers.mixture import NonlinearMixture
from keras_robust.layers.mlp import Mlp
from keras_robust.layers.normalization import GlobalResponseNorm, LayerNorm
from keras_robust.layers.preact_resnet import PreActBlock
from keras_robust.layers.preprocessing import ImageInput, Normalize, ReverseChannels
from keras_robust.layers.regularization import LayerScale, MeanSparse, StochasticDepth
from keras_robust.layers.resnet import BasicBlock, Bottleneck, ResNetStem, SqueezeExcite
from keras_robust.layers.stems import ConvStem, PatchStem
from keras_robust.layers.swin import PatchMerging, SwinBlock, WindowAttention
from keras_robust.layers.vit import ClassToken, PatchMap, PositionEmbedding, TransformerBlock
from keras_robust.layers.xcit import (
    ClassAttention,
    ClassAttentionBlock,
    CrossCovarianceAttention,
    FourierPosition,
    LocalPatchInteraction,
    XCiTBlock,
    XCiTStem,
)

__all__ = [
    "Attention",
    "BasicBlock",
    "Bottleneck",
    "ImageInput",
    "ClassAttention",
    "ClassAttentionBlock",
    "ClassToken",
    "ConvNeXtBlock",
    "ConvNeXtDownsample",
    "ConvStem",
    "CrossCovarianceAttention",
    "FourierPosition",
    "GlobalResponseNorm",
    "LayerNorm",
    "LayerScale",
    "LocalPatchInteraction",
    "MeanSparse",
    "Mlp",
    "NonlinearMixture",
    "Normalize",
    "ReverseChannels",
    "PaddedConv2D",
    "PatchMap",
    "PatchMerging",
    "PatchStem",
    "PositionEmbedding",
    "PreActBlock",
    "ResNetStem",
    "SqueezeExcite",
    "StochasticDepth",
    "SwinBlock",
    "TransformerBlock",
    "WindowAttention",
    "XCiTBlock",
    "XCiTStem",
    "gelu",
]
