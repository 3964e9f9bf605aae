"""PyTorch: one device, as Keras 3.15 trains on no more under this backend."""

from typing import Any

import torch

from keras_robust.backend.distribution import Distribution

KINDS = ("single",)


def detect() -> Any:
    return "single"


def start(kind: Any) -> Any:
    return Distribution(hardware="GPU" if torch.cuda.is_available() else "CPU")
