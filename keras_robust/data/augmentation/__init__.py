"""Augmentation of training images: policies as data, random parameters, and the operations on host and device."""

from keras_robust.data.augmentation.on_device import DeviceAugmentation
from keras_robust.data.augmentation.policy import BASIC, HEAVY, POLICIES, Policy

__all__ = ["BASIC", "HEAVY", "POLICIES", "DeviceAugmentation", "Policy"]
