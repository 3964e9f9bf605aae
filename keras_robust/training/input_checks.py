"""Checks of a training step's input: before it or, where it is compiled, counted and then raised."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_robust.attacks import sanity_checks
from keras_robust.batch_checks import check_images, check_labels, check_pixel_labels
from keras_robust.dense_labels import IGNORED
from keras_robust.types import Tensor

if TYPE_CHECKING:
    from keras_robust.training.adversarial_model import AdversarialModel


def check_arrays(x: Tensor, y: Tensor, sample_weight: Tensor | None, classes: int, dense: bool = False) -> None:
    """Raises a ValueError for images, labels or weights that are not as `AdversarialModel.fit` takes them."""
    x = check_images(x)
    if y is None:
        raise ValueError("y must be given: an attack needs labels; received None.")
    if dense:
        check_pixel_labels(y, tuple(x.shape[:3]), classes)
    else:
        check_labels(y, x.shape[0], classes)
    if sample_weight is not None and not np.isfinite(ops.convert_to_numpy(sample_weight)).all():
        raise ValueError("sample_weight must be finite numbers; received NaN or infinity.")


@contextmanager
def named(argument: str) -> Iterator[None]:
    """Puts the name of an argument before what is said of the images and labels in it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from error


def check_held_out(y: Any, share: float) -> None:
    """Refuses a `validation_split` whose images, the last ones, are of classes that training would never see.

    Raises:
        ValueError: arrays sorted by class, which Keras does not shuffle before it takes the last ones.
    """
    labels = ops.convert_to_numpy(y)
    if labels.ndim > 2:  # images that hold many classes each
        return
    labels = labels.argmax(1) if labels.ndim == 2 and labels.shape[1] > 1 else labels.reshape(-1)
    first = int(len(labels) * (1 - share))
    missing = np.setdiff1d(labels[first:], labels[:first])
    if len(missing):
        raise ValueError(
            f"validation_split={share:g} holds out the last {len(labels) - first} images, and with them all of class "
            f"{', '.join(map(str, missing[:10]))}: x and y are sorted by class. Shuffle both first: "
            "order = np.random.default_rng(0).permutation(len(x)); x, y = x[order], y[order]"
        )


def check_kinds(x: Any, y: Any) -> None:
    """Refuses batches that are no pair of tensors, as dicts and nested ones."""
    if not hasattr(x, "dtype") or not (y is None or hasattr(y, "dtype")):
        kinds = f"{type(x).__name__} and {type(y).__name__}"
        raise ValueError(
            f"batches must be one tensor of images and one of labels; received {kinds}. Map the data set to these: "
            'dataset.map(lambda batch: (batch["image"], batch["label"])).'
        )


def accepted(x: Tensor, y: Tensor, classes: int, dense: bool = False) -> tuple[Tensor, ...]:
    """One batch inside the step, every value brought into its range; with `dense` labels are those of pixels.

    Returns:
        Images in [0, 1]; the labels for Keras; those for the attack; whether each image, and each label, was out of
        range, booleans (batch,).

    Raises:
        ValueError: types or shapes that no value could mend.
    """
    if y is None:
        raise ValueError("y must be given: an attack needs labels; received None.")
    if "float" not in keras.backend.standardize_dtype(x.dtype) or len(x.shape) != 4:
        raise ValueError(
            "x must be float images of shape (batch, height, width, channels) in [0, 1]; "
            f"received dtype {keras.backend.standardize_dtype(x.dtype)} and shape {tuple(x.shape)}."
        )
    x = ops.cast(x, "float32")
    bad_images = ops.logical_not(ops.all(ops.logical_and(x >= 0.0, x <= 1.0), axis=(1, 2, 3)))
    x = ops.clip(x, 0.0, 1.0)
    if dense:
        if len(y.shape) != 3 or "int" not in keras.backend.standardize_dtype(y.dtype):
            raise ValueError(
                "y must be integer class indices of each pixel, of shape (batch, height, width); "
                f"received dtype {keras.backend.standardize_dtype(y.dtype)} and shape {tuple(y.shape)}."
            )
        labels = ops.cast(y, "int32")
        clipped = ops.clip(labels, IGNORED, classes - 1)
        return x, clipped, clipped, bad_images, ops.any(ops.not_equal(labels, clipped), axis=(1, 2))
    if len(y.shape) == 2 and y.shape[1] == classes:
        soft = ops.cast(y, "float32")
        valid = ops.logical_and(ops.all(soft >= 0.0, axis=1), ops.abs(ops.sum(soft, axis=1) - 1.0) < 1e-2)
        return x, y, soft, bad_images, ops.logical_not(valid)
    if len(y.shape) > 2 or (len(y.shape) == 2 and y.shape[1] != 1) or "int" not in str(y.dtype):
        raise ValueError(
            f"y must be integer class indices of shape (batch,) or soft labels of shape (batch, {classes}); "
            f"received dtype {keras.backend.standardize_dtype(y.dtype)} and shape {tuple(y.shape)}."
        )
    labels = ops.cast(ops.reshape(y, (-1,)), "int32")
    clipped = ops.clip(labels, 0, classes - 1)
    return x, clipped, clipped, bad_images, ops.not_equal(labels, clipped)


class InputCheck(keras.callbacks.Callback):
    """Raises before the second batch and after every epoch what the `trainer` counted."""

    def __init__(self, trainer: "AdversarialModel") -> None:
        super().__init__()
        self.trainer = trainer

    def _check(self) -> None:
        self.trainer.synchronize()
        images, labels = (float(metric.result()) for metric in (self.trainer.bad_images, self.trainer.bad_labels))
        if images:
            raise ValueError(f"x must be finite pixels in [0, 1]; {images:.0f} images are not.")
        if labels:
            other = "soft labels whose rows sum to 1 (not several classes at once)"
            if self.trainer.dense:
                other = f"{IGNORED} for pixels that do not count"
            accepted = f"class indices in [0, {self.trainer.num_classes - 1}] or {other}"
            of = "images have others" if self.trainer.dense else "labels are not"
            raise ValueError(f"y must be {accepted}; {labels:.0f} {of}.")

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        # Not at the end of the first one: for a callback with that method Keras waits for the logs of every step, and
        # the device then for the next batch.
        if batch == self.trainer.steps_per_execution:
            self._check()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._check()

    def on_test_begin(self, logs: dict[Any, Any] | None = None) -> None:
        # Validation resets the counts of the epoch that it follows.
        self._check()

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        self._check()
        for warning in self._doubts():
            warnings.warn(warning, stacklevel=2)

    def _doubts(self) -> Iterator[str]:
        """What speaks against the robust accuracy that was just measured."""
        trainer = self.trainer
        predicted, labelled = trainer.predicted.counts(), trainer.labelled.counts()
        if not labelled.sum():
            return
        yield from sanity_checks.of_answers(predicted, labelled, "pixels" if trainer.dense else "images")
        hidden = float(trainer.without_gradient.result())
        if hidden >= sanity_checks.HIDDEN:
            yield sanity_checks.zero_gradients(hidden)


def with_input_check(callbacks: Any, trainer: "AdversarialModel") -> Any:
    """The callbacks, with an `InputCheck` among them."""
    check = InputCheck(trainer)
    if isinstance(callbacks, keras.callbacks.CallbackList):
        # `fit` hands the list that it was given on to `evaluate`.
        if not any(isinstance(callback, InputCheck) for callback in callbacks.callbacks):
            callbacks.callbacks.append(check)
        return callbacks
    return [check, *(callbacks if isinstance(callbacks, (list, tuple)) else [callbacks] if callbacks else [])]


def check_loss(loss: Any) -> None:
    """Refuses losses that would take the model's logits for probabilities and train wrongly without a word."""
    for each in keras.tree.flatten(loss):
        each = keras.losses.get(each) if isinstance(each, str) else each
        name = getattr(each, "__name__", type(each).__name__)
        from_keras = str(getattr(each, "__module__", "")).startswith("keras.")
        probabilities = any(part in name.lower() for part in ("cross", "divergence", "poisson"))
        from_logits = each.get_config().get("from_logits") if hasattr(each, "get_config") else None
        if from_logits is False or (from_logits is None and from_keras and probabilities):
            raise ValueError(
                "loss must take logits, e.g. keras.losses.SparseCategoricalCrossentropy(from_logits=True); "
                f"received {name!r} with from_logits=False."
            )
