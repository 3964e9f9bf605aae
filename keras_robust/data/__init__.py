"""Images: sources, augmentation, preprocessing, batches for training, pictures to look at."""

from keras_robust.data.array_batches import OrientedBatches
from keras_robust.data.augmentation import BASIC, HEAVY, POLICIES, DeviceAugmentation, Policy
from keras_robust.data.pipeline import TrainPipeline
from keras_robust.data.preprocessing import decode, resize_and_crop
from keras_robust.data.sources import ImageFolder, PhotoCrops, Source, image_folder, photo_crops, source
from keras_robust.data.visualization import attack_sheet, contact_sheet

__all__ = [
    "BASIC",
    "HEAVY",
    "POLICIES",
    "DeviceAugmentation",
    "ImageFolder",
    "OrientedBatches",
    "PhotoCrops",
    "Policy",
    "Source",
    "TrainPipeline",
    "attack_sheet",
    "contact_sheet",
    "decode",
    "image_folder",
    "photo_crops",
    "resize_and_crop",
    "source",
]
