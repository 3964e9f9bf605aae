"""Images: sources, augmentation, preprocessing, batches for training, pictures to look at.

What a worker process of an input pipeline needs is imported without Keras or a framework.
"""

from typing import TYPE_CHECKING

from keras_robust.lazy import lazy_attributes

if TYPE_CHECKING:
    from keras_robust.data import layers
    from keras_robust.data.array_batches import OrientedBatches
    from keras_robust.data.augmentation import BASIC, HEAVY, POLICIES, DeviceAugmentation, Policy
    from keras_robust.data.pipeline import TrainPipeline
    from keras_robust.data.preprocessing import decode, resize_and_crop
    from keras_robust.data.sources import Source, photo_crops, source
    from keras_robust.data.visualization import amplified_difference, attack_sheet, contact_sheet

__all__ = [
    "BASIC",
    "HEAVY",
    "POLICIES",
    "DeviceAugmentation",
    "OrientedBatches",
    "Policy",
    "Source",
    "TrainPipeline",
    "amplified_difference",
    "attack_sheet",
    "contact_sheet",
    "decode",
    "layers",
    "photo_crops",
    "resize_and_crop",
    "source",
]

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "keras_robust.data.array_batches": ("OrientedBatches",),
        "keras_robust.data.augmentation.on_device": ("DeviceAugmentation",),
        "keras_robust.data.augmentation.policy": ("BASIC", "HEAVY", "POLICIES", "Policy"),
        "keras_robust.data.pipeline": ("TrainPipeline",),
        "keras_robust.data.preprocessing": ("decode", "resize_and_crop"),
        "keras_robust.data.sources": ("Source", "photo_crops", "source"),
        "keras_robust.data.visualization": ("amplified_difference", "attack_sheet", "contact_sheet"),
    },
    ("layers",),
)
