"""What a compiled step can only count, raised from outside of it: pixels and labels out of range."""

import keras


class InputCheck(keras.callbacks.Callback):
    """Raises after the first batch and after every epoch what the `trainer` counted."""

    def __init__(self, trainer):
        super().__init__()
        self.trainer = trainer

    def _check(self):
        if keras.backend.backend() == "jax":
            self.trainer.jax_state_sync()
        images, labels = (float(metric.result()) for metric in (self.trainer.bad_images, self.trainer.bad_labels))
        if images:
            raise ValueError(f"x must be finite pixels in [0, 1]; {images:.0f} images are not.")
        if labels:
            last = self.trainer.model.output_shape[-1] - 1
            accepted = f"class indices in [0, {last}] or soft labels whose rows sum to 1"
            raise ValueError(f"y must be {accepted}; {labels:.0f} labels are not.")

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.trainer.steps_per_execution - 1:
            self._check()

    def on_epoch_end(self, epoch, logs=None):
        self._check()

    def on_test_begin(self, logs=None):
        # Validation resets the counts of the epoch that it follows.
        self._check()

    def on_test_end(self, logs=None):
        self._check()


def with_input_check(callbacks, trainer):
    """The callbacks, with an `InputCheck` among them."""
    check = InputCheck(trainer)
    if isinstance(callbacks, keras.callbacks.CallbackList):
        # `fit` hands the list that it was given on to `evaluate`.
        if not any(isinstance(callback, InputCheck) for callback in callbacks.callbacks):
            callbacks.callbacks.append(check)
        return callbacks
    return [check, *(callbacks if isinstance(callbacks, (list, tuple)) else [callbacks] if callbacks else [])]


def check_loss(loss):
    """Refuses losses that would take the model's logits for probabilities and train wrongly without a word."""
    for each in keras.tree.flatten(loss):
        each = keras.losses.get(each) if isinstance(each, str) else each
        name = getattr(each, "__name__", type(each).__name__)
        from_keras = str(getattr(each, "__module__", "")).startswith("keras.")
        probabilities = any(part in name.lower() for part in ("cross", "divergence", "poisson"))
        from_logits = getattr(each, "get_config", dict)().get("from_logits")
        if from_logits is False or (from_logits is None and from_keras and probabilities):
            raise ValueError(
                "loss must take logits, e.g. keras.losses.SparseCategoricalCrossentropy(from_logits=True); "
                f"received {name!r} with from_logits=False."
            )
