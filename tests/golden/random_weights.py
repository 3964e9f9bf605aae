"""Weights drawn from the names of the tensors, and images: the same wherever they are drawn."""

import zlib

import numpy as np


def state_dict(shapes, seed=0):
    """A float32 array for each name in `shapes`, a dict of shapes.

    Scaled so that activations keep their size through the layers and every tensor makes a difference to the logits.
    """
    return {name: _draw(name, tuple(shape), seed) for name, shape in shapes.items()}


def _draw(name, shape, seed):
    rng = np.random.RandomState([zlib.crc32(name.encode()), seed])
    leaf = name.rpartition(".")[2]
    if leaf in ("running_var", "temperature"):
        value = rng.uniform(0.5, 1.5, shape)
    elif leaf == "threshold":
        value = rng.uniform(0.1, 0.5, shape)
    elif "gamma" in name:
        value = rng.uniform(0.3, 0.7, shape)
    elif name.endswith("F.c.1.weight"):  # RobArch adds 37 branches to each other: larger ones grow from block to block
        value = rng.uniform(0.3, 0.9, shape)
    elif leaf == "bias" and ".F." in name:  # SiLU would let smaller signals die out
        value = rng.normal(0.0, 0.5 if name.endswith("F.c.1.bias") else 1.0, shape)
    elif leaf in ("bias", "running_mean"):
        value = rng.normal(0.0, 0.1, shape)
    elif len(shape) == 1:
        value = rng.uniform(0.5, 1.5, shape)
    elif leaf == "weight":
        fan_in = np.prod(shape[1:])
        value = rng.standard_normal(shape) * np.sqrt(1.5 / fan_in)
    else:  # class tokens, position embeddings and biases
        value = rng.normal(0.0, 0.5, shape)
    return value.astype("float32")


def images(height, width, seed=0):
    """Two images, (2, height, width, 3), in [0, 1]: noise of several coarsenesses."""
    rng = np.random.RandomState([height, width, seed])
    x = sum(
        rng.uniform(size=(2, -(-height // n), -(-width // n), 3)).repeat(n, 1).repeat(n, 2)[:, :height, :width]
        for n in (1, 4, 16, 64)
    )
    return (x / 4).astype("float32")
