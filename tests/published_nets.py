"""Small robust nets that others published, in plain torch and in Keras, where their weights are at hand.

Set KERAS_ROBUST_SHARED_DATA to the folder that holds `robust-checkpoints`; by default `../shared/data`.
"""

import os
from pathlib import Path

import keras
import numpy as np
import pytest

FOLDER = Path(os.environ.get("KERAS_ROBUST_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
NETS = ("mnist-madrycnn-tiny", "cifar10-resnet2b", "cifar10-oval-base")
NORMALISATION = {
    "mnist-madrycnn-tiny": ((0.0,), (1.0,)),
    "cifar10-resnet2b": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar10-oval-base": ((0.485, 0.456, 0.406), (0.225, 0.225, 0.225)),
}

needs_nets = pytest.mark.skipif(not (FOLDER / "robust-checkpoints").is_dir(), reason="published nets are not at hand")


def images(name, count):
    """`count` test images, float32 (count, height, width, channels) in [0, 1], and their classes."""
    file = "mnist-test-1000.npz" if name.startswith("mnist") else "cifar10-test-200-lossless.npz"
    with np.load(FOLDER / "robust-checkpoints" / file, allow_pickle=False) as data:
        x, y = data["x"][:count], data["y"][:count]
    x = x[..., None] if x.ndim == 3 else x
    return (x / 255.0).astype("float32"), y.astype("int32")


def weights(name):
    with np.load(FOLDER / "robust-checkpoints" / f"{name}.npz", allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


class _Keras:
    """Layers of Keras on NHWC tensors; dense weights in the order of channel-first flattening."""

    relu = staticmethod(keras.layers.ReLU())

    def __init__(self, tensors):
        self.tensors = tensors

    def conv(self, x, name, stride, padding):
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        if padding:
            x = keras.layers.ZeroPadding2D(padding)(x)
        layer = keras.layers.Conv2D(len(bias), weight.shape[2], stride)
        x = layer(x)
        layer.set_weights([weight.transpose(2, 3, 1, 0), bias])
        return x

    def dense(self, x, name):
        layer = keras.layers.Dense(len(self.tensors[f"{name}.bias"]))
        x = layer(x)
        layer.set_weights([self.tensors[f"{name}.weight"].T, self.tensors[f"{name}.bias"]])
        return x

    def normalise(self, x, mean, std):
        return keras.layers.Rescaling([1 / s for s in std], [-m / s for m, s in zip(mean, std)])(x)

    def flatten(self, x):
        return keras.layers.Flatten()(keras.layers.Permute((3, 1, 2))(x))


class _Torch:
    """The same layers in torch on NCHW tensors."""

    def __init__(self, tensors):
        import torch

        self.torch = torch
        self.tensors = {key: torch.from_numpy(value) for key, value in tensors.items()}

    def conv(self, x, name, stride, padding):
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return self.torch.nn.functional.conv2d(x, weight, bias, stride, padding)

    def dense(self, x, name):
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def normalise(self, x, mean, std):
        return (x - self.torch.tensor(mean).view(1, -1, 1, 1)) / self.torch.tensor(std).view(1, -1, 1, 1)

    def relu(self, x):
        return x.relu()

    def flatten(self, x):
        return x.flatten(1)


def _forward(name, net, x):
    x = net.normalise(x, *NORMALISATION[name])
    if name == "cifar10-resnet2b":
        x = net.relu(net.conv(x, "conv1", 2, 1))
        shortcut = net.conv(x, "layer1.0.shortcut.0", 2, 0)
        x = net.relu(net.conv(net.relu(net.conv(x, "layer1.0.conv1", 2, 1)), "layer1.0.conv2", 1, 1) + shortcut)
        x = net.relu(net.conv(net.relu(net.conv(x, "layer1.1.conv1", 1, 1)), "layer1.1.conv2", 1, 1) + x)
        return net.dense(net.relu(net.dense(net.flatten(x), "linear1")), "linear2")
    padding = 2 if name.startswith("mnist") else 1
    x = net.relu(net.conv(x, "0", 2, padding))
    x = net.relu(net.conv(x, "2", 2, padding))
    return net.dense(net.relu(net.dense(net.flatten(x), "5")), "7")


def keras_net(name):
    """A Keras model from NHWC images to logits."""
    x = keras.Input((28, 28, 1) if name.startswith("mnist") else (32, 32, 3))
    return keras.Model(x, _forward(name, _Keras(weights(name)), x))


def torch_net(name):
    """A callable from NCHW images to logits in torch."""
    net = _Torch(weights(name))
    return lambda x: _forward(name, net, x)
