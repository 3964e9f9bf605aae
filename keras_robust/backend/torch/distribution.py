"""PyTorch: one device, as Keras 3.15 trains on no more under this backend."""

import torch

from keras_robust.backend.distribution import Distribution

KINDS = ("single",)


def detect():
    return "single"


def start(kind):
    return Distribution(hardware="GPU" if torch.cuda.is_available() else "CPU")
