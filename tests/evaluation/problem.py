"""A linear model on images of one colour: who is robust to what is known in closed form.

As a script, an evaluation of it: python -m tests.evaluation.problem FOLDER DEVICES
"""

import sys

import keras
import numpy as np
from PIL import Image

import keras_robust as kr
from keras_robust.data import Source
from tests.devices import virtual_devices

WEIGHTS = np.array([0.7, -0.4, 0.1], np.float32)


class Flat(Source):
    """Images of one colour each, in the middle of the pixel range, where no attack meets black or white."""

    def __init__(self, n, side=16, class_names=("no", "yes")):
        rng = np.random.default_rng(0)
        self.class_names = class_names
        self.colours = rng.integers(100, 156, (n, 3)).astype(np.uint8)
        self.labels = rng.integers(0, 2, n)
        self.side = side

    def image(self, index):
        return np.tile(self.colours[index], (self.side, self.side, 1))

    def margins(self):
        """Logit of the label minus the other's, in the model below."""
        score = (self.colours / 255 - 0.5) @ WEIGHTS
        return np.where(self.labels == 1, score, -score)

    def robust(self, threat, resolution):
        """Which images are robust: the margin moves by at most eps times the dual norm of weights / pixels."""
        pixels = resolution**2
        reach = {
            "Linf": np.abs(WEIGHTS).sum(),
            "L2": np.linalg.norm(WEIGHTS) / np.sqrt(pixels),
            "L1": np.abs(WEIGHTS).max() / pixels,
        }
        return self.margins() > threat.eps * reach[threat.norm]


def image_folder(folder, n):
    """The images as files `class/index.png`."""
    source = Flat(n)
    for index, label in enumerate(source.labels):
        path = folder / source.class_names[label] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.image(index)).save(path)
    return folder


def linear_model():
    inputs = keras.Input((None, None, 3))
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inputs))
    model = keras.Model(inputs, outputs, name="linear")
    model.layers[-1].set_weights([np.stack([0 * WEIGHTS, WEIGHTS], 1), np.array([0, -0.5 * WEIGHTS.sum()])])
    return model


def evaluation(folder):
    """An evaluation in twenty batches, into the folder."""
    threats = [kr.ThreatModel("Linf", 0.01), kr.ThreatModel("L2", 0.2)]
    attack = [kr.attacks.APGD(threats[0], n_iter=3, random_start=True, returns="misclassified")]
    kr.evaluation.evaluate(linear_model(), Flat(40), threats, [8], attack, out=folder, batch_size=2, verbose=False)


if __name__ == "__main__":
    out, devices = sys.argv[1:]
    if int(devices) > 1:
        virtual_devices(int(devices))
        assert len(keras.distribution.list_devices()) == int(devices)
    evaluation(out)
