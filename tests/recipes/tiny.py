"""A run that takes seconds: a net of a few thousand weights on 60 images. As a script: train it, and die at a step.

python -m tests.recipes.tiny FOLDER IMAGES.npz STEP
"""

import os
import signal
import sys

import keras
import numpy as np

from keras_robust.models import registry
from keras_robust.models.convnext import IsotropicConvNeXt
from keras_robust.recipes import (
    AttackConfig,
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    Recipe,
    TrainingConfig,
    callbacks,
    overrides,
    runner,
    train,
)

NAME = "tiny"
BACKEND = keras.backend.backend()


def register():
    if NAME not in registry.names():
        registry.register(NAME, IsotropicConvNeXt(1, 8))


def images(path):
    """Sixty images of three classes: a colour each, and noise."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = rng.integers(0, 120, (60, 18, 18, 3))
    x[np.arange(60), :, :, y] += 110
    np.savez(path, images=x.astype(np.uint8), labels=y)
    return path


def recipe(source, *assignments):
    """Two epochs of three steps, everything on: RandAugment, mixup, accumulation, EMA, a random start."""
    register()
    tiny = Recipe(
        "tiny",
        model=ModelConfig(NAME),
        data=DataConfig(str(source), resolution=16, batch_size=8, policy="heavy", workers=1),
        training=TrainingConfig(epochs=2, steps_per_epoch=4, accumulate=2, ema_decay=0.8, precision="float32"),
        attack=AttackConfig("pgd", n_iter=1),
        evaluation=EvaluationConfig(n_examples=12, n_iter=2),
        checkpoints=CheckpointConfig(every_steps=1),
    )
    return overrides.override(tiny, assignments)


class Recorder(keras.callbacks.Callback):
    """What a user's callback sees of a run: its events, the logs of its epochs, and two figures of each batch."""

    def __init__(self):
        super().__init__()
        self.seen, self.logs, self.batches = [], [], []

    def on_train_begin(self, logs=None):
        assert self.model is not None
        self.seen.append("begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append(f"epoch {epoch}")

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append((self.model.training_means(), logs))
        self.seen.append(batch)

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(f"end of {epoch}")
        self.logs.append(logs)

    def on_train_end(self, logs=None):
        self.seen.append("end")


def at_step(step, action):
    """Calls `action` when training has come to a step, before its checkpoint if there is one."""
    original = callbacks.StepWatcher.after_step

    def watched(self, batch):
        if self.start + batch + 1 == step:
            action()
        original(self, batch)

    callbacks.StepWatcher.after_step = watched


def without_pictures():
    """Has runs draw no picture of the attack, which takes as long to compile as a step."""
    runner.TrainingRun._log_attack = lambda self, step: None


if __name__ == "__main__":
    without_pictures()
    folder, source, step = sys.argv[1:]
    at_step(int(step), lambda: os.kill(os.getpid(), signal.SIGKILL))
    train(recipe(source), folder)
