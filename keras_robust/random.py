"""Random draws that depend on (seed, step, example index) alone: not on batch size, device count or backend.

Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) in wrapping 32-bit
integer arithmetic of `keras.ops`: a pure function of key and counter, so that training can resume, be sharded or be
traced without a generator's state, and the three backends draw the same numbers.
"""

import math
from typing import Any

from keras import ops

from keras_robust.types import Tensor

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def _rotate(x: Tensor, bits: int) -> Tensor:
    # Shifting right is arithmetic on signed integers, hence the mask.
    low = ops.bitwise_and(ops.right_shift(x, 32 - bits), (1 << bits) - 1)
    return ops.bitwise_or(ops.left_shift(x, bits), low)


def threefry2x32(key: tuple[Tensor, Tensor], counter: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Threefry-2x32-20: a keyed bijection of pairs of 32-bit words.

    Args:
        key, counter: pairs of int32 tensors that broadcast against one another (bit patterns of unsigned words).

    Returns:
        A pair of int32 tensors.

    Example:
        >>> zero = keras.ops.zeros((1,), "int32")
        >>> [hex(int(w[0]) & 0xFFFFFFFF) for w in threefry2x32((zero, zero), (zero, zero))]
        ['0x6b200159', '0x99ba4efe']
    """
    keys = (key[0], key[1], ops.bitwise_xor(ops.bitwise_xor(key[0], key[1]), _PARITY))
    a, b = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(5):
        for bits in _ROTATIONS[group % 2]:
            a = a + b
            b = ops.bitwise_xor(_rotate(b, bits), a)
        a = a + keys[(group + 1) % 3]
        b = b + keys[(group + 2) % 3] + (group + 1)
    return a, b


def _words(value: Any) -> Tensor:
    return ops.cast(ops.convert_to_tensor(value), "int32")


def example_keys(seed: int, step: Any, index: Tensor) -> tuple[Tensor, Tensor]:
    """One key per example.

    Args:
        seed: int in [0, 2**31).
        step: int or integer scalar tensor: what changes between the draws of one run.
        index: int tensor of shape (batch,): the position of each example in the global batch or the data set.

    Returns:
        A pair of int32 tensors of shape (batch,).
    """
    index = _words(index)
    return threefry2x32((_words(seed), _words(step)), (index, ops.zeros_like(index)))


def fold_in(keys: tuple[Tensor, Tensor], stream: Any) -> tuple[Tensor, Tensor]:
    """Keys of an independent stream of draws: a restart, say."""
    return threefry2x32(keys, (_words(stream) + ops.zeros_like(keys[0]), ops.ones_like(keys[0])))


def numbers(keys: tuple[Tensor, Tensor], index: Tensor, count: int) -> Tensor:
    """Uniform float32 draws in [0, 1): `count` for each entry of `index`, int32 (batch, n), shape (batch, n, count)."""
    word = ops.arange((count + 1) // 2, dtype="int32")[None, None] + 3
    words = threefry2x32((keys[0][:, None, None], keys[1][:, None, None]), (_words(index)[:, :, None], word))
    return ops.concatenate([_unit(part) for part in words], axis=-1)[:, :, :count]


def _bits(keys: tuple[Tensor, Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
    """Two int32 tensors of random bits in the shape of `like` (batch, ...)."""
    shape = ops.shape(like)
    count = math.prod(shape[1:])
    position = ops.arange(count, dtype="int32")[None]
    words = threefry2x32((keys[0][:, None], keys[1][:, None]), (position, ops.full_like(position, 2)))
    return tuple(ops.reshape(word, shape) for word in words)


def _unit(bits: Tensor) -> Tensor:
    """Uniform floats in [0, 1) from the upper 24 bits."""
    return ops.cast(ops.bitwise_and(ops.right_shift(bits, 8), 0xFFFFFF), "float32") * 2.0**-24


def uniform(keys: tuple[Tensor, Tensor], like: Tensor) -> Tensor:
    """Uniform float32 draws in [0, 1) in the shape of `like` (batch, ...)."""
    return _unit(_bits(keys, like)[0])


def normal(keys: tuple[Tensor, Tensor], like: Tensor) -> Tensor:
    """Standard normal float32 draws in the shape of `like` (batch, ...), by the method of Box and Muller."""
    first, second = (_unit(bits) for bits in _bits(keys, like))
    radius = ops.sqrt(-2.0 * ops.log(1.0 - first))
    return radius * ops.cos((2.0 * math.pi) * second)
