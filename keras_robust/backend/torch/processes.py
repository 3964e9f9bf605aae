"""PyTorch: processes that share each global batch of a training, by torch.distributed.

In `sharing()` every process computes on its part of a batch, and what belongs to the whole batch is put together here:
gradients, statistics of batch normalisation, metrics, positions. Outside of it a process is alone.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import torch
from torch import distributed

from keras_robust.backend import keras_private
from keras_robust.types import Tensor

BUCKET = 2**24  # numbers in a message, 64 MiB of float32
HALVES = (torch.float16, torch.bfloat16)
GRACE = 15.0  # seconds that a process whose message failed leaves `watch` to say why

_sharing = False
_sizes: list[int] = []  # of the parts of the present batch, by process


@contextmanager
def sharing() -> Iterator[None]:
    """Inside, trainings are those of all processes of the default group together."""
    global _sharing
    before, _sharing = _sharing, True
    try:
        yield
    finally:
        _sharing = before


def shared() -> bool:
    """Whether several processes train together here."""
    return _sharing and distributed.get_world_size() > 1


@contextmanager
def parts_of_batch(count: int) -> Iterator[None]:
    """Inside, `count` examples are this process' part of a global batch, known by their positions.

    Raises:
        ValueError: another process has none.
    """
    global _sizes
    if not shared():
        yield
        return
    sizes = [int(size) for size in exchanged(count)]
    if not all(sizes):
        raise ValueError(
            f"batch_size must leave images for each of the {len(sizes)} processes, in the last batch too: one of "
            f"{sum(sizes)} left none for process {sizes.index(0)}."
        )
    before, _sizes = _sizes, sizes
    try:
        yield
    finally:
        _sizes = before


def even() -> bool:
    """Whether the parts of the present batch are of one size."""
    return len({*_sizes}) <= 1


def example_index(count: int, before: Any = 0) -> Tensor:
    index = keras.ops.arange(count, dtype="int32")
    if not _sizes:
        return index + before * count
    return index + sum(_sizes[: distributed.get_rank()]) + before * sum(_sizes)


def all_examples(x: Any) -> Any:
    if not _sizes:
        return x
    x = keras.ops.convert_to_tensor(x)
    padded = torch.cat([x, x.new_zeros((max(_sizes) - len(x), *x.shape[1:]))])
    parts = [torch.empty_like(padded) for _ in _sizes]
    with _or_lost():
        distributed.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, _sizes)])


def exchanged(number: float) -> list[float]:
    """The number that each process gives; no device is waited for."""
    places = torch.zeros(distributed.get_world_size(), dtype=torch.float64)
    places[distributed.get_rank()] = number
    _add_up(places)
    return places.tolist()


@torch.no_grad()
def add_up(tensors: Sequence[Any]) -> None:
    """Puts the sum over all processes in the place of each tensor, with few messages."""
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        flat = flat.float() if flat.dtype in HALVES else flat
        _add_up(flat)
        for tensor, total in zip(bucket, flat.split([tensor.numel() for tensor in bucket])):
            tensor.copy_(total.view_as(tensor))


@torch.no_grad()
def agree(tensors: Sequence[Any]) -> None:
    """Puts the values of the first process in the place of those of the others, whose initial draws may differ."""
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        with _or_lost():
            distributed.broadcast(flat.view(torch.uint8), 0)
        for tensor, value in zip(bucket, flat.split([tensor.numel() for tensor in bucket])):
            tensor.copy_(value.view_as(tensor))


def share_of_loss(loss: Any) -> Any:
    """The loss of this part of a batch; its gradient is weighted so that the sum over the processes is the whole's."""
    share = _sizes[distributed.get_rank()] / sum(_sizes)
    if loss.requires_grad:
        loss.register_hook(lambda gradient: gradient * share)
    return loss


@contextmanager
def whole_batch(model: keras.Model, optimizer: Any) -> Iterator[None]:
    """Inside, an update is that of the global batch: its gradients, and its statistics in batch normalisation.

    Keras' step leaves no place between gradients and update, so that the optimizer is where they are added up.
    """
    apply = optimizer.apply

    def apply_sum(gradients: Any, *arguments: Any, **options: Any) -> Any:
        add_up([gradient for gradient in gradients if gradient is not None])
        return apply(gradients, *arguments, **options)

    optimizer.apply = apply_sum
    try:
        with keras_private.batch_moments(model, _moments_of_all):
            yield
    finally:
        del optimizer.apply


@contextmanager
def of_all_parts(variables: Sequence[keras.Variable]) -> Iterator[None]:
    """What is added to the variables inside, as metrics are, is what all processes have added."""
    values = [variable.value for variable in variables]
    with torch.no_grad():
        before = [value.clone() for value in values]
        for value in values:
            value.zero_()
    yield
    # Metrics may have put other tensors in their place.
    values = [variable.value for variable in variables]
    add_up(values)
    with torch.no_grad():
        for value, start in zip(values, before):
            value.add_(start)


class _Sum(torch.autograd.Function):
    """Sum over the processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, x: Any) -> Any:
        total = x.clone()
        _add_up(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        total = gradient.clone(memory_format=torch.contiguous_format)
        _add_up(total)
        return total


def _moments_of_all(x: Any, axes: Sequence[int]) -> tuple[Any, Any]:
    """Mean and variance over the global batch, as Keras computes them over one: E[x^2] - E[x]^2."""
    share = _sizes[distributed.get_rank()] / sum(_sizes)
    both = torch.stack([x.mean(axes), x.square().mean(axes)])
    mean, square = _Sum.apply(both * share)  # type: ignore[no-untyped-call]
    return mean, square - mean.square()


def _buckets(tensors: Sequence[Any]) -> list[list[Any]]:
    """The tensors in groups of one type, each of about `BUCKET` numbers or a single one; the same on all processes."""
    buckets: dict[Any, list[list[Any]]] = {}
    for tensor in tensors:
        groups = buckets.setdefault((tensor.dtype, tensor.device), [[]])
        if groups[-1] and sum(each.numel() for each in groups[-1]) + tensor.numel() > BUCKET:
            groups.append([])
        groups[-1].append(tensor)
    return [bucket for groups in buckets.values() for bucket in groups]


def _add_up(x: Any) -> None:
    with _or_lost():
        distributed.all_reduce(x)


@contextmanager
def _or_lost() -> Iterator[None]:
    """Around a message: where a process has died it fails here, or hangs, and `watch` says which process it was."""
    try:
        yield
    except RuntimeError:
        time.sleep(GRACE)
        raise
