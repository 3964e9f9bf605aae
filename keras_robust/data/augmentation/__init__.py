"""Augmentation of training images: policies as data, random parameters, and the operations on host and device."""

from typing import TYPE_CHECKING

from keras_robust.data.augmentation.policy import BASIC, HEAVY, POLICIES, Policy
from keras_robust.lazy import lazy_attributes

if TYPE_CHECKING:
    from keras_robust.data.augmentation.on_device import DeviceAugmentation

__all__ = ["BASIC", "HEAVY", "POLICIES", "DeviceAugmentation", "Policy"]

__getattr__, __dir__ = lazy_attributes(__name__, {"keras_robust.data.augmentation.on_device": ("DeviceAugmentation",)})
