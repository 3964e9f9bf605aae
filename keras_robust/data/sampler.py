"""Sampler of a training pipeline: which images a step takes, and what is drawn for each. Numpy alone, no state.

Draws come from Philox (Salmon et al. 2011), whose stream numpy guarantees from release to release, as raw words, with
(seed, epoch, index) in key and counter.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from keras_robust.data.augmentation import parameters
from keras_robust.data.augmentation.policy import Policy

# Draws that have nothing to do with each other.
_ORDER, _EXAMPLE, _GROUP = range(3)


def shard_slice(shard: tuple[int, int], count: int) -> slice:
    """The i-th of n parts of `count` things; `shard` is (i, n), 1 <= i <= n.

    Example:
        >>> list(range(10))[shard_slice((2, 4), 10)]
        [2, 3, 4]
    """
    i, n = shard
    return slice((i - 1) * count // n, i * count // n)


class Sampler:
    """The examples and transformations of every step: a pure function of (seed, step).

    An epoch is a random order of all examples, cut into batches; a remainder that does not fill a batch is left out
    (in the next epoch it is another one). Batches are global: shard i of n takes the i-th of n equal parts, and what
    else its images are mixed with. Only where shards cut a group of `policy.group_size` in two does one image have to
    be loaded by two shards.

    Args:
        count: number of examples in the data set.
        batch_size: of the global batch.
        resolution: side of the images, in pixels.
        policy: the augmentations.
        seed: of order and draws.
        shard: (i, n), the i-th of n parts of each batch, 1 <= i <= n.

    Attributes:
        steps_per_epoch: full batches in an epoch.
        positions: of what this shard loads, in the global batch.
        own: where among those the shard's own images are.
        partners: where among those the partner of each is.
    """

    def __init__(
        self, count: int, batch_size: int, resolution: int, policy: Policy, seed: int, shard: tuple[int, int]
    ) -> None:
        self.count, self.batch_size, self.resolution = count, batch_size, resolution
        self.policy, self.seed = policy, seed
        self.steps_per_epoch = count // batch_size
        mine = self.positions = np.arange(batch_size)[shard_slice(shard, batch_size)]
        if policy.mixes:
            self.positions = np.union1d(mine, parameters.partner(mine, batch_size, policy.group_size, np))
        partners = parameters.partner(self.positions, batch_size, policy.group_size, np)
        self.own = np.searchsorted(self.positions, mine).astype("int32")
        self.partners = np.searchsorted(self.positions, partners).astype("int32")

    def examples(self, step: int) -> dict[str, np.ndarray]:
        """What is done to each image that this shard loads at global step `step`.

        Returns:
            index: int64 (n,) in the data set. crop: float32 (n, parameters.CROP), what `parameters.crop_box` takes once
            the size of the image is known. flip: bool (n,). operation, magnitude: (n, n_operations), as
            `parameters.operations`, magnitudes with their sign. erase: int32 (n, 4), top, left, height,
            width. noise: int32 (n, 2), a seed.
        """
        policy = self.policy
        epoch, position = divmod(int(step), self.steps_per_epoch)
        index = _order(self.count, self.seed, epoch)[position * self.batch_size + self.positions]
        widths = (parameters.CROP, 1, parameters.OPERATION * policy.n_operations, parameters.ERASE, 2)
        numbers = np.stack([_numbers(self.seed, _EXAMPLE, epoch, i, sum(widths)) for i in index])
        crop, flip, operation, erase, noise = np.split(numbers, np.cumsum(widths)[:-1], axis=1)
        which, magnitude, sign = parameters.operations(
            operation.reshape(len(index), policy.n_operations, parameters.OPERATION), policy
        )
        box = parameters.erase_box(
            erase, float(self.resolution), policy.erase_probability, policy.erase_area, policy.erase_aspect_ratio, np
        )
        return {
            "index": index,
            "crop": crop.astype("float32"),
            "flip": flip[:, 0] < policy.flip_probability,
            "operation": which,
            "magnitude": (sign * magnitude).astype("float32"),
            "erase": np.stack(box, axis=-1).astype("int32"),
            "noise": np.floor(noise * 2.0**31).astype("int32"),
        }

    def mixtures(self, step: int) -> dict[str, np.ndarray]:
        """How each image that this shard loads is mixed with its partner at global step `step`.

        Returns:
            lambda: float32 (n,), share of the image in its label. blend: float32 (n,), in its pixels. box: int32
            (n, 4), top, bottom, left, right. See `parameters.mixture`.
        """
        epoch, position = divmod(int(step), self.steps_per_epoch)
        groups = -(-self.batch_size // self.policy.group_size)
        numbers = np.stack(
            [_numbers(self.seed, _GROUP, epoch, position * groups + group, parameters.MIX) for group in range(groups)]
        )
        share, blend, box = parameters.mixture(numbers, float(self.resolution), self.policy, np)
        group = self.positions // self.policy.group_size
        return {
            "lambda": share.astype("float32")[group],
            "blend": blend.astype("float32")[group],
            "box": np.stack(box, axis=-1).astype("int32")[group],
        }


def _words(seed: int, stream: Any, epoch: int, index: Any, count: Any) -> Any:
    return np.random.Philox(key=[seed, stream], counter=[0, index, epoch, 0]).random_raw(count)


def _numbers(seed: int, stream: Any, epoch: int, index: Any, count: Any) -> Any:
    """`count` uniform numbers in [0, 1), float64 with 53 random bits."""
    return (_words(seed, stream, epoch, index, count) >> np.uint64(11)) * 2.0**-53


@lru_cache(maxsize=2)  # ten megabytes each for ImageNet, in every worker
def _order(count: Any, seed: int, epoch: int) -> Any:
    """A random order of the examples. By sorting: numpy guarantees the raw words, not its own shuffle."""
    return np.argsort(_words(seed, _ORDER, epoch, 0, count), kind="stable")
