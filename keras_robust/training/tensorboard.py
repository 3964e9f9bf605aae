"""TensorBoard without TensorFlow: training curves and pictures of the attack at work, on every backend."""

import io
import time
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_robust.attacks.base import Attack
from keras_robust.data import attack_sheet
from keras_robust.training.adversarial_model import AdversarialModel

PICTURE = "clean, adversarial, amplified difference"


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
        >>> history = trainer.fit(x, y, validation_data=(x_val, y_val), callbacks=[board], verbose=0)
    """

    def __init__(
        self,
        log_dir: str | PathLike,
        attack: Attack | None = None,
        images: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        enlarge: int = 4,
    ) -> None:
        super().__init__()
        given = {"attack": attack, "images": images, "labels": labels}
        missing = [name for name, value in given.items() if value is None]
        if 0 < len(missing) < len(given):
            raise ValueError(f"attack, images and labels must be given together; {', '.join(missing)} is missing.")
        self.attack = attack
        self.images = images
        self.labels = labels
        self.enlarge = enlarge
        self._board = TensorBoardWriter(log_dir)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        for name, value in (logs or {}).items():
            run, name = ("validation", name.removeprefix("val_")) if name.startswith("val_") else ("train", name)
            self._board.scalars(run, {f"epoch_{name}": value}, epoch)
        self._board.scalars("train", {"epoch_learning_rate": self.model.optimizer.learning_rate}, epoch)
        if self.attack is not None and self.images is not None:
            # The inner model, so that what was compiled for it serves after training as well.
            model = self.model.model if isinstance(self.model, AdversarialModel) else self.model
            x_adv = self.attack(model, self.images, self.labels)
            self._board.picture("validation", PICTURE, attack_sheet(self.images, x_adv, self.enlarge), epoch)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._board.close()


class TensorBoardWriter:
    """Curves and pictures of several runs of one board, each run in a folder of its own.

    Args:
        folder: for `tensorboard --logdir`.
        start: step from which the runs go on: TensorBoard forgets what was logged beyond it.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, folder: str | PathLike, start: int | None = None) -> None:
        self.folder, self._start = Path(folder), start
        self._files: dict[str, EventFile] = {}
        _tensorboard()  # a missing package should stop a training here, not at the end of its first epoch

    def scalars(self, run: str, values: Mapping[str, Any], step: int) -> None:
        for name, value in values.items():
            self._file(run).scalar(name, float(value), step)

    def picture(self, run: str, tag: str, pixels: np.ndarray, step: int) -> None:
        """A picture, uint8 (height, width, 3)."""
        self._file(run).image(tag, pixels, step)

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}

    def _file(self, run: str) -> "EventFile":
        if run not in self._files:
            self._files[run] = EventFile(self.folder / run)
            if self._start is not None:
                self._files[run].start(self._start)
        return self._files[run]


class EventFile:
    """One TensorBoard event file: a sequence of checksummed protocol buffers."""

    def __init__(self, folder: Path) -> None:
        self._event, self._summary, record_writer = _tensorboard()
        folder.mkdir(parents=True, exist_ok=True)
        # Nanoseconds: a second `fit` in the same folder adds a file and must not truncate the first.
        self._file = (folder / f"events.out.tfevents.{time.time_ns()}.keras_robust").open("wb")
        self._records = record_writer(self._file)
        self._write(file_version="brain.Event:2")

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._write(step=step, summary=self._summary(value=[{"tag": tag, "simple_value": value}]))

    def start(self, step: int) -> None:
        """Tells TensorBoard that the run goes on from a step: what an earlier file has beyond it is dropped."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._write(step=step, session_log=SessionLog(status=SessionLog.START))

    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        from PIL import Image  # a requirement of tensorboard itself

        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        height, width = pixels.shape[:2]
        picture = {"height": height, "width": width, "colorspace": 3, "encoded_image_string": png.getvalue()}
        self._write(step=step, summary=self._summary(value=[{"tag": tag, "image": picture}]))

    def close(self) -> None:
        self._file.close()

    def _write(self, **fields: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._file.flush()


def _tensorboard() -> tuple[Any, Any, Any]:
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as error:
        raise ImportError("TensorBoard logs are written by tensorboard: pip install tensorboard") from error
    return Event, Summary, RecordWriter
