"""Checks of a robustness figure: each yields warnings, sentences that say why the figure may be too high."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust import backend, losses
from keras_robust.attacks.base import is_zero, zero_gradients
from keras_robust.backend import keras_private
from keras_robust.statistics import Estimate, Proportion
from keras_robust.types import Tensor

RANDOM_CHANGE = 1e-4  # of the logits, relative to their length, that rounding does not explain
CALLS = 5  # of the model: what is random need not show in the second
SQUARE_GAIN = 0.002  # of robust accuracy
FEW = 100  # images
HIDDEN = 0.5  # share of images without a gradient beyond which a trainer warns; a few saturate in any good model


def of_model(
    model: Callable | keras.Model, logits: Callable, x: np.ndarray, y: np.ndarray, expect_random: bool = False
) -> Iterator[Any]:
    """Warnings about a model, from its behaviour on a few images and without attacking them.

    Args:
        model: a Keras model or any callable.
        logits: function from numpy images to numpy logits, of the uncompiled model.
        x, y: numpy images (n, height, width, channels) and classes (n,).
        expect_random: the evaluation is one for random outputs.
    """
    yield from of_outputs(logits, x, expect_random)
    yield from of_layers(model)
    if _differentiates(logits, x[:1]):
        yield (
            "Optimisation inside the model: its answer takes gradients of its own, as defences at test time do. "
            "Attacks through it may fail for that reason alone: it needs an adaptive attack."
        )
    zero, not_finite, zero_dlr = _gradients(model, x, y, logits(x[:1]).shape[1])
    if zero:
        yield zero_gradients(zero)
    if zero_dlr > zero:
        yield (
            f"Zero gradients of DLR: for {zero_dlr:.0%} of the images the difference of logits ratio has a gradient of "
            "zero. Attacks on it see nothing there."
        )
    if not_finite:
        yield (
            f"Non-finite gradients: the gradient of the cross-entropy is NaN or infinite for {not_finite:.0%} of the "
            "images; such entries count as zero in the attacks."
        )


def withholding_layers(model: Any) -> tuple[str, ...]:
    """Classes of a model's layers that say, by `withholds_gradients`, that they pass none through part of what they do.

    A model that was exported has them in an attribute of this function's name, from its metadata.
    """
    layers = keras_private.flat_layers(model) if isinstance(model, keras.Model) else []
    found = {type(layer).__name__ for layer in layers if getattr(layer, "withholds_gradients", False)}
    return tuple(sorted({*found, *getattr(model, "withholding_layers", ())}))


def of_layers(model: Any) -> Iterator[Any]:
    """Warnings about layers of a Keras model that say that they pass no gradient where they change features."""
    for name in withholding_layers(model):
        yield (
            f"Gradients withheld: {name} layers pass none through part of what they compute. AutoAttack overstates "
            "such models (of the published MeanSparse Swin-L it leaves 62.12 %, a stronger attack of others 58.92 %): "
            "read the robust accuracy as an upper bound."
        )


def of_outputs(logits: Callable, x: np.ndarray, expect_random: bool = False) -> Iterator[Any]:
    """Warnings about a model from its outputs alone; the arguments are those of `of_model`."""
    first, *others = (logits(x) for _ in range(CALLS))
    length = np.maximum(np.linalg.norm(first, axis=1), 1e-12)
    change = np.max([np.linalg.norm(first - again, axis=1) for again in others], axis=0)
    random = (change > RANDOM_CHANGE * length).mean()
    if random and not expect_random:
        yield (
            f"Randomised: {CALLS} calls differ in the logits of {random:.0%} of the images. Gradients of one call say "
            'little about the next: use version="rand", and an adaptive attack before publishing.'
        )
    elif not random and len(x) > 1:
        alone = np.concatenate([logits(x[i : i + 1]) for i in range(min(4, len(x)))])
        change = np.linalg.norm(first[: len(alone)] - alone, axis=1)
        if (change > 10 * RANDOM_CHANGE * length[: len(alone)]).any():
            yield (
                "Batch-dependent: an image's logits depend on the other images of its batch, as with batch "
                "normalisation in training mode. Robustness then means nothing for single images: use inference mode."
            )
    if first.min() >= 0 and first.max() <= 1 + 1e-5 and np.allclose(first.sum(1), 1, atol=1e-5):
        yield (
            "Probabilities: the outputs lie in [0, 1] and sum to 1. Through a softmax, gradients of confident "
            "predictions vanish and attacks fail for the wrong reason: evaluate the logits."
        )


def of_answers(predicted: np.ndarray, labels: np.ndarray, what: str = "images") -> Iterator[str]:
    """A warning about a model that gives all images, or pixels, one answer; counts of each class, (classes,) both."""
    if np.count_nonzero(labels) > 1 and np.count_nonzero(predicted) == 1:
        yield (
            f"One answer: all {int(predicted.sum())} {what} are classified as {int(predicted.argmax())}, whatever they "
            "show. Such a model is as robust as it is useless: its robust accuracy is the share of that class."
        )


def of_chance(robust: Mapping[str, Proportion | Estimate], labels: np.ndarray) -> Iterator[str]:
    """Warnings about robust accuracies, by what they are of, that answering one class to everything would reach.

    Args:
        robust: from what they are of to the accuracies; one of 0 says enough by itself.
        labels: count of the images of each class, (classes,).
    """
    share = labels.max() / labels.sum()
    low = [f"{where} {robust}" for where, robust in robust.items() if 0 < robust.value <= share]
    if np.count_nonzero(labels) > 1 and low:
        yield (
            f"No better than one answer for all: the largest class has {share:.1%} of the images, and robust accuracy "
            f"is not above that: {'; '.join(low)}."
        )


def of_sample(n_examples: int) -> Iterator[str]:
    """A warning about too few images to tell two models apart."""
    if n_examples < FEW:
        low, high = Proportion(n_examples // 2, n_examples).interval
        yield (
            f"Few images: on {n_examples} an accuracy near 50 % is known to {50 * (high - low):.0f} points only: two "
            "models that differ by less cannot be told apart."
        )


def of_classes(num_classes: int, fallbacks: Mapping[str, tuple[int, str]]) -> Iterator[Any]:
    """Warnings about attacks that a model has too few classes for; `fallbacks` name -> (classes needed, instead)."""
    for loss, (needed, instead) in fallbacks.items():
        if num_classes < needed:
            yield (
                f"Few classes: the loss {loss!r} needs {needed} classes, the model has {num_classes}; {instead!r} was "
                "used instead."
            )


def of_result(accuracy_after: dict[str, float]) -> Iterator[Any]:
    """Warnings about the outcome of an ensemble, from the accuracy after each of its attacks."""
    names = list(accuracy_after)
    if "square" in names and len(names) > 2:
        place = names.index("square")
        gain = accuracy_after[names[place - 1]] - accuracy_after["square"]
        if gain > SQUARE_GAIN:
            yield (
                f"Square found more: the attack without gradients lowered the robust accuracy by {gain:.1%} after the "
                "gradient attacks. The gradients are probably masked, and the figure too high: use an adaptive attack."
            )


def of_distances(distances: np.ndarray) -> Iterator[str]:
    """A warning about images for which attacks without a bound found no adversarial image, where there must be some."""
    missing = int(np.isinf(distances).sum())
    if missing:
        yield (
            f"Nothing found: for {missing} of {len(distances)} images no misclassified point was found at any "
            "distance. The attacks failed there; such images count as robust at every radius."
        )


def of_radii(accuracies: dict[float, float]) -> Iterator[Any]:
    """Warnings about the accuracies {eps: robust accuracy} under one norm: a larger ball cannot be harder to leave."""
    for (smaller, before), (larger, after) in zip(sorted(accuracies.items()), sorted(accuracies.items())[1:]):
        if after > before:
            yield (
                f"Rising with eps: the robust accuracy is {after:.1%} at radius {larger:g} and {before:.1%} at the "
                f"smaller {smaller:g}, though the larger ball holds the smaller one. The attacks are too weak there."
            )


def _differentiates(logits: Callable, x: np.ndarray) -> bool:
    """Whether the model calls its framework's differentiation while it answers."""
    file, names = backend.DIFFERENTIATION
    seen = []

    def look(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_name in names and code.co_filename.replace(os.sep, "/").endswith(file):
            seen.append(code.co_name)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        logits(x)
    finally:
        sys.setprofile(before)
    return bool(seen)


def _gradients(model: Callable | keras.Model, x: np.ndarray, y: np.ndarray, classes: int) -> tuple[float, ...]:
    """Shares of the images whose cross-entropy has a zero gradient, or one that is not finite; whose DLR a zero one."""

    def probe(frozen: Any, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        def gradient(of: Callable) -> tuple[Tensor, Tensor]:
            def loss(x: Tensor) -> tuple[Tensor, Tensor]:
                logits = ops.cast(frozen(x), "float32")
                return of(logits, y), losses.correct(logits, y)

            _, correct, found = backend.input_gradient(loss, x)
            return found, correct

        found, _ = gradient(losses.cross_entropy)
        finite = ops.all(ops.isfinite(found), axis=tuple(range(1, len(x.shape))))
        if classes < 3:
            return is_zero(found), ops.logical_not(finite), is_zero(found)
        # Where the label's logit is the third largest DLR is constant, by its definition: correct images tell.
        of_dlr, correct = gradient(losses.dlr)
        return is_zero(found), ops.logical_not(finite), ops.logical_and(correct > 0.0, is_zero(of_dlr))

    flags = backend.compile(probe, model)(ops.convert_to_tensor(x), ops.convert_to_tensor(y))
    return tuple(float(np.mean(ops.convert_to_numpy(flag))) for flag in flags)
