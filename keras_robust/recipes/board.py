"""What a run shows in TensorBoard."""

import time
from pathlib import Path

import numpy as np
from keras import ops

from keras_robust.data import attack_sheet
from keras_robust.training.events import EventWriter, tensorboard

SHOWN = 8  # images in the picture of the attack


class Board:
    """Curves in the runs `train`, `epochs`, `validation` and `validation_averaged`, and pictures of the attack.

    Args:
        folder: for `tensorboard --logdir`; None, or tensorboard not installed: nothing is written.
    """

    def __init__(self, folder):
        self.folder = None if folder is None else Path(folder)
        self._writers = {}
        self._start = 0
        self._attack_seconds = None
        try:
            tensorboard()
        except ImportError:
            self.folder = None

    def start(self, step):
        """The run goes on from a step: TensorBoard forgets what was logged beyond it."""
        self._start = step

    def scalars(self, run, values, step):
        if self.folder is not None:
            for name, value in values.items():
                self._writer(run).scalar(name, float(value), step)

    def attack(self, trainer, validation, step, images_per_step, seconds_per_step, input_wait=None):
        """A picture of the validation attack, and the time that the training attack takes out of a step.

        A compiled step cannot be stopped in the middle: the training attack runs by itself on a batch of the
        validation's size, and its time per image is set against that of a whole step.
        """
        if self.folder is None:
            return
        x, y = validation.first(SHOWN)
        sheet = attack_sheet(x, trainer.validation_attack(trainer.model, x, y), max(1, 128 // x.shape[1]))
        self._writer("validation").image("clean, adversarial, amplified difference", sheet, step)
        if not trainer.attacks or not seconds_per_step:
            return
        if self._attack_seconds is None:
            x, y = validation.first(validation.batch_size)
            self._attack_seconds = _seconds_of(lambda: trainer.attacks[0](trainer.model, x, y)) / len(x)
        attack = min(self._attack_seconds * images_per_step / seconds_per_step, 1.0)
        wait = input_wait or 0.0
        shares = {"attack": attack, "input_wait": wait, "update": max(1.0 - attack - wait, 0.0)}
        self.scalars("train", {f"time/{name}_share": share for name, share in shares.items()}, step)

    def close(self):
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _writer(self, run):
        if run not in self._writers:
            self._writers[run] = EventWriter(self.folder / run)
            self._writers[run].start(self._start)
        return self._writers[run]


def _seconds_of(function):
    """How long a call takes, once it has been compiled."""
    function()
    start = time.perf_counter()
    np.asarray(ops.convert_to_numpy(function()))
    return time.perf_counter() - start
