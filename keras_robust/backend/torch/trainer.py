"""PyTorch: autograd.grad on the images, eager, weights detached while the model is attacked."""

from typing import TYPE_CHECKING, Any

import keras
import torch

from keras_robust.backend.torch.autodiff import frozen_call, usable


def example_index(count: Any) -> Any:
    return torch.arange(count, dtype=torch.int32)


def all_examples(x: Any) -> Any:
    return x


if TYPE_CHECKING:
    from keras import Model as Base  # what the class is mixed into
else:
    Base = object


class TrainStep(Base):
    def train_step(self, data: Any) -> Any:
        with torch.no_grad():
            data = self._attack_batch(frozen_call(self), self.counter.value, data)
        self.counter.assign_add(1)
        logs = super().train_step(data)
        with torch.no_grad():
            self._update_averages()
        return self._training_logs(logs)

    def test_step(self, data: Any) -> Any:
        with torch.no_grad():
            self._measure(frozen_call(self), keras.tree.map_structure(usable, data))
        return super().test_step(data)
