"""Images: sources, augmentation, preprocessing, batches for training, pictures to look at."""

from keras_robust.data.batches import OrientedBatches
from keras_robust.data.device import DeviceAugmentation
from keras_robust.data.pictures import attack_sheet, contact_sheet
from keras_robust.data.pipeline import TrainPipeline
from keras_robust.data.policy import BASIC, HEAVY, POLICIES, Policy
from keras_robust.data.preprocessing import decode, resize_and_crop
from keras_robust.data.sources import ImageFolder, PhotoCrops, Source, image_folder, photo_crops, source

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
