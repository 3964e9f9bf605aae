"""Semantic segmentation: models on robust backbones, losses and attacks on dense labels, training and evaluation."""

from typing import TYPE_CHECKING

from keras_robust.lazy import lazy_attributes

if TYPE_CHECKING:
    from keras_robust.segmentation import losses, sources
    from keras_robust.segmentation.batches import MaskBatches
    from keras_robust.segmentation.counts import PixelCounts
    from keras_robust.segmentation.evaluation import evaluate
    from keras_robust.segmentation.objective import PixelCrossEntropy
    from keras_robust.segmentation.published_runs import PUBLISHED, published
    from keras_robust.segmentation.registry import create, load_backbone, names, segmenter, with_auxiliary_head
    from keras_robust.segmentation.report import SegmentationReport
    from keras_robust.segmentation.sea_attacks import sea
    from keras_robust.segmentation.sources import MaskSource, source
    from keras_robust.segmentation.training import SegmentationRecipe, train

__all__ = [
    "PUBLISHED",
    "MaskBatches",
    "MaskSource",
    "PixelCounts",
    "PixelCrossEntropy",
    "SegmentationRecipe",
    "SegmentationReport",
    "create",
    "evaluate",
    "load_backbone",
    "losses",
    "names",
    "published",
    "sea",
    "segmenter",
    "source",
    "sources",
    "train",
    "with_auxiliary_head",
]

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "keras_robust.segmentation.batches": ("MaskBatches",),
        "keras_robust.segmentation.counts": ("PixelCounts",),
        "keras_robust.segmentation.evaluation": ("evaluate",),
        "keras_robust.segmentation.objective": ("PixelCrossEntropy",),
        "keras_robust.segmentation.published_runs": ("PUBLISHED", "published"),
        "keras_robust.segmentation.registry": ("create", "load_backbone", "names", "segmenter", "with_auxiliary_head"),
        "keras_robust.segmentation.report": ("SegmentationReport",),
        "keras_robust.segmentation.sea_attacks": ("sea",),
        "keras_robust.segmentation.sources": ("MaskSource", "source"),
        "keras_robust.segmentation.training": ("SegmentationRecipe", "train"),
    },
    ("losses", "sources"),
)
