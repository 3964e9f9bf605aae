"""PyTorch: autograd.grad on the images, eager, weights detached while the model is attacked."""

import torch

from keras_robust.backend.torch.autodiff import frozen_call


def example_index(count):
    return torch.arange(count, dtype=torch.int32)


class TrainStep:
    def train_step(self, data):
        with torch.no_grad():
            data = self.attack_batch(frozen_call(self), self.counter.value, data)
        self.counter.assign_add(1)
        averages = self.averages_to_hold()
        before = [average.value.clone() for average in averages]
        updates = self.optimizer.iterations
        logs = super().train_step(data)
        if averages and self.optimizer.iterations == updates:
            for average, value in zip(averages, before):
                average.assign(value)
        with torch.no_grad():
            self.update_averages()
        return self.training_logs(logs)

    def test_step(self, data):
        self.measure(frozen_call(self), data)
        return super().test_step(data)
