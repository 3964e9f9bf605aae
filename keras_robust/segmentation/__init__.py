"""Semantic segmentation: models on robust backbones, losses and attacks on dense labels, training and evaluation."""

from keras_robust.segmentation import losses
from keras_robust.segmentation.batches import MaskBatches
from keras_robust.segmentation.counts import PixelCounts
from keras_robust.segmentation.evaluate import evaluate
from keras_robust.segmentation.objective import PixelCrossEntropy
from keras_robust.segmentation.registry import create, load_backbone, names, segmenter, with_auxiliary_head
from keras_robust.segmentation.report import SegmentationReport
from keras_robust.segmentation.sea import sea
from keras_robust.segmentation.sources import MaskSource, source

__all__ = [
    "MaskBatches",
    "MaskSource",
    "PixelCounts",
    "PixelCrossEntropy",
    "SegmentationReport",
    "create",
    "evaluate",
    "load_backbone",
    "losses",
    "names",
    "sea",
    "segmenter",
    "source",
    "with_auxiliary_head",
]
