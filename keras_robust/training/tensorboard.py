"""TensorBoard without TensorFlow: training curves and pictures of the attack at work, on every backend."""

from os import PathLike
from pathlib import Path

import keras
import numpy as np

from keras_robust.attacks.base import Attack
from keras_robust.data import attack_sheet
from keras_robust.training.adversarial_model import AdversarialModel
from keras_robust.training.events import EventWriter, tensorboard


class AdversarialTensorBoard(keras.callbacks.Callback):
    """Logs to TensorBoard what `fit` logs and, after every epoch, what the attack does to a few images.

    Where Keras' own callback needs TensorFlow, this one needs the `tensorboard` package alone. Curves are named as
    Keras names them (`epoch_loss`, in the runs `train` and `validation`), so that both can share a board. The picture
    has three rows: the images, the adversarial images, and their difference amplified to the full range.

    Args:
        log_dir: folder of the event files, for `tensorboard --logdir`.
        attack: the attack to show; no pictures without one.
        images, labels: a few images (n, height, width, channels), float in [0, 1], and their labels.
        enlarge: each pixel is drawn as a square of this side.

    Raises:
        ImportError: tensorboard is not installed.
        ValueError: only some of `attack`, `images` and `labels` are given.

    Example:
        >>> board = kr.training.AdversarialTensorBoard("runs/1", trainer.validation_attack, x_val[:8], y_val[:8])
        >>> trainer.fit(x, y, validation_data=(x_val, y_val), callbacks=[board])
    """

    def __init__(
        self,
        log_dir: str | PathLike,
        attack: Attack | None = None,
        images: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        enlarge: int = 4,
    ):
        super().__init__()
        given = {"attack": attack, "images": images, "labels": labels}
        missing = [name for name, value in given.items() if value is None]
        if 0 < len(missing) < len(given):
            raise ValueError(f"attack, images and labels must be given together; {', '.join(missing)} is missing.")
        self.log_dir = Path(log_dir)
        self.attack = attack
        self.images = images
        self.labels = labels
        self.enlarge = enlarge
        tensorboard()  # a missing package should stop the run here, not at the end of its first epoch
        self._writers: dict[str, EventWriter] = {}

    def on_epoch_end(self, epoch, logs=None):
        for name, value in (logs or {}).items():
            run, name = ("validation", name.removeprefix("val_")) if name.startswith("val_") else ("train", name)
            self._writer(run).scalar(f"epoch_{name}", float(value), epoch)
        self._writer("train").scalar("epoch_learning_rate", float(self.model.optimizer.learning_rate), epoch)
        if self.attack is not None:
            # The inner model, so that what was compiled for it serves after training as well.
            model = self.model.model if isinstance(self.model, AdversarialModel) else self.model
            x_adv = self.attack(model, self.images, self.labels)
            sheet = attack_sheet(self.images, x_adv, self.enlarge)
            self._writer("validation").image("clean, adversarial, amplified difference", sheet, epoch)

    def on_train_end(self, logs=None):
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _writer(self, run):
        if run not in self._writers:
            self._writers[run] = EventWriter(self.log_dir / run)
        return self._writers[run]
