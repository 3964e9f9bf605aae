"""Semantic segmentation: models on robust backbones, losses and attacks on dense labels, training and evaluation."""

from keras_robust.segmentation import losses
from keras_robust.segmentation.objective import PixelCrossEntropy
from keras_robust.segmentation.registry import create, load_backbone, names, segmenter, with_auxiliary_head

__all__ = ["PixelCrossEntropy", "create", "load_backbone", "losses", "names", "segmenter", "with_auxiliary_head"]
