"""AdversarialModel: a Keras model that attacks every batch before it trains on it."""

import keras
import numpy as np
from keras import ops

from keras_robust import backend, losses, random
from keras_robust.attacks.apgd import APGD
from keras_robust.attacks.base import Attack, loss_scale
from keras_robust.checks import check_count, check_images, check_labels, check_logits_shape


@keras.saving.register_keras_serializable("keras_robust")
class PerUpdate(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that counts updates where Keras counts the micro-batches of gradient accumulation."""

    def __init__(self, schedule, steps):
        super().__init__()
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step):
        return self.schedule(step // self.steps)

    def get_config(self):
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "steps": self.steps}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["steps"])


@keras.saving.register_keras_serializable("keras_robust")
class AdversarialModel(backend.TrainStep, keras.Model):
    """Trains `model` on adversarial images: min over weights of max over the ball of the loss (Madry et al. 2018).

    Each training step attacks the batch with the model in inference mode and its weights constant, then hands the
    adversarial images to Keras' own training step. Optimizer, loss, metrics, sample weights, mixed precision, jit and
    callbacks are used as with any Keras model.

    Args:
        model: a built Keras model from float images (batch, height, width, channels) in [0, 1] to logits.
        attack: the training attack, e.g. `APGD(threat, n_iter=2)`. Its random draws, if any, depend on its seed, the
            number of the update and the position in the batch.
        validation_attack: attack of `evaluate` and of validation in `fit`; by default 10-step APGD under the same
            threat model that returns misclassified images.
        eps_warmup_steps: updates over which the radius rises linearly to the attack's eps; adversarial training at a
            large radius from the first step on can collapse to a constant predictor.

    Raises:
        ValueError: arguments of the wrong kind; in `compile`: a loss that does not expect logits, or a combination
            that Keras cannot run.

    Logs of training: `loss` and metrics on the adversarial batch. Logs of validation: `val_loss` and metrics on clean
    images, and `val_robust_accuracy`, the share of images that are classified correctly clean and under attack.

    Example:
        >>> attack = kr.attacks.APGD(kr.ThreatModel("Linf", 4 / 255), n_iter=2)
        >>> trainer = kr.AdversarialModel(model, attack)
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> trainer.compile(keras.optimizers.AdamW(1e-3), loss, metrics=["accuracy"])
        >>> trainer.fit(x, y, validation_data=(x_val, y_val))
    """

    def __init__(self, model, attack, validation_attack=None, eps_warmup_steps=0, **options):
        if not isinstance(model, keras.Model) or not model.built:
            raise ValueError(f"model must be a built keras.Model; received {model!r}.")
        for name, value in (("attack", attack), ("validation_attack", validation_attack)):
            if not isinstance(value, Attack) and not (name == "validation_attack" and value is None):
                raise ValueError(
                    f"{name} must be an Attack, e.g. kr.attacks.APGD(threat, n_iter=2); received {value!r}."
                )
        check_logits_shape(getattr(model, "output_shape", None))
        # The inner model casts what it is given; casting here as well would round the adversarial pixels.
        super().__init__(**{"dtype": model.dtype_policy, "autocast": False, **options})
        self.model = model
        self.attack = attack
        self.validation_attack = validation_attack or APGD(attack.threat, n_iter=10, returns="misclassified")
        self.eps_warmup_steps = check_count("eps_warmup_steps", eps_warmup_steps, least=0)
        self.counter = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="counter")
        self.robust_accuracy = keras.metrics.Mean(name="robust_accuracy")
        self.bad_images = keras.metrics.Sum(name="bad_images")
        self.bad_labels = keras.metrics.Sum(name="bad_labels")
        self.built = True

    def call(self, x, training=None):
        return self.model(x, training=training)

    def compile(self, optimizer="adamw", loss=None, *, steps_per_execution=1, **options):
        """Configures training as `keras.Model.compile` does; `loss` must take logits.

        Raises:
            ValueError: a loss with `from_logits=False`; `steps_per_execution > 1` on the PyTorch backend; gradient
                accumulation together with `ema_overwrite_frequency`.
        """
        _check_loss(loss)
        if keras.backend.backend() == "torch" and steps_per_execution != 1:
            raise ValueError(f"steps_per_execution must be 1 on the PyTorch backend; received {steps_per_execution!r}.")
        optimizer = keras.optimizers.get(optimizer)
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        accumulated = inner.gradient_accumulation_steps
        if accumulated:
            if inner.use_ema and inner.ema_overwrite_frequency:
                raise ValueError(
                    "ema_overwrite_frequency must be None with gradient_accumulation_steps: Keras would overwrite the "
                    f"weights between updates; received {inner.ema_overwrite_frequency!r}."
                )
            schedule = inner._learning_rate
            if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule) and not isinstance(
                schedule, PerUpdate
            ):
                inner.learning_rate = PerUpdate(schedule, accumulated)
        super().compile(optimizer, loss, steps_per_execution=steps_per_execution, **options)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **options):
        """Trains as `keras.Model.fit` does.

        Raises:
            ValueError: pixels outside [0, 1] or not finite, integer images, labels out of range: before training for
                arrays, after the first batch and after every epoch for anything else.
        """
        self._check_arrays(x, y)
        callbacks = _with_input_check(callbacks, self)
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, **options)

    def evaluate(self, x=None, y=None, batch_size=None, verbose="auto", callbacks=None, **options):
        """Evaluates as `keras.Model.evaluate` does, with `robust_accuracy` under `validation_attack` besides."""
        self._check_arrays(x, y)
        callbacks = _with_input_check(callbacks, self)
        return super().evaluate(x, y, batch_size, verbose, callbacks=callbacks, **options)

    def train_on_batch(self, x, y=None, *arguments, **options):
        self._check_arrays(x, y)
        return super().train_on_batch(x, y, *arguments, **options)

    def test_on_batch(self, x, y=None, *arguments, **options):
        self._check_arrays(x, y)
        return super().test_on_batch(x, y, *arguments, **options)

    def make_train_function(self, force=False):
        # The step looks at the optimizer's moving averages before it is first applied.
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def attack_batch(self, frozen, counter, data):
        """The adversarial batch of one training step; `frozen` is the model with constant weights."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x, y, labels = self._accepted(x, y)
        per_update = self._micro_batches()
        update = counter // per_update
        index = ops.arange(ops.shape(x)[0], dtype="int32")
        index = index + ops.cast(counter % per_update, "int32") * ops.shape(x)[0]
        eps = self.attack.threat.eps
        if self.eps_warmup_steps:
            eps = eps * ops.minimum((ops.cast(update, "float32") + 1.0) / self.eps_warmup_steps, 1.0)
        keys = random.example_keys(self.attack.seed, update, index)
        x_adv, _ = self.attack.perturb(frozen, x, labels, keys, eps, loss_scale(self.model, self.attack.loss))
        return ops.stop_gradient(x_adv), y, sample_weight

    def measure(self, frozen, data):
        """Adds the batch to the robust accuracy under the validation attack."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x, y, labels = self._accepted(x, y)
        attack = self.validation_attack
        keys = random.example_keys(attack.seed, 0, ops.arange(ops.shape(x)[0], dtype="int32"))
        x_adv, _ = attack.perturb(frozen, x, labels, keys, loss_scale=loss_scale(self.model, attack.loss))
        robust = ops.logical_and(losses.correct(frozen(x), labels), losses.correct(frozen(x_adv), labels))
        self.robust_accuracy.update_state(ops.cast(robust, "float32"), sample_weight)

    def averages(self):
        """The optimizer's moving averages of the weights."""
        optimizer = self._inner_optimizer()
        averages = optimizer._model_variables_moving_average if optimizer.use_ema else []
        return [average for average in averages if average is not None]

    def averages_to_hold(self):
        """The moving averages that Keras would update at every micro-batch, where they must wait for the update."""
        return self.averages() if self._micro_batches() > 1 else []

    def get_metrics_result(self):
        hidden = (self.bad_images.name, self.bad_labels.name)
        return {name: value for name, value in super().get_metrics_result().items() if name not in hidden}

    def training_logs(self, logs):
        """Robust accuracy is a matter of validation."""
        return {name: value for name, value in logs.items() if name != self.robust_accuracy.name}

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "model": serialize(self.model),
            "attack": serialize(self.attack),
            "validation_attack": serialize(self.validation_attack),
            "eps_warmup_steps": self.eps_warmup_steps,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("model", "attack", "validation_attack"):
            config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
        return cls(**config)

    def _inner_optimizer(self):
        return getattr(self.optimizer, "inner_optimizer", self.optimizer)

    def _micro_batches(self):
        return self._inner_optimizer().gradient_accumulation_steps or 1

    def _accepted(self, x, y):
        """Images in [0, 1], the labels for Keras and those for the attack; what was out of range is counted."""
        if y is None:
            raise ValueError("y must be given: an attack needs labels; received None.")
        if "float" not in keras.backend.standardize_dtype(x.dtype) or len(x.shape) != 4:
            raise ValueError(
                "x must be float images of shape (batch, height, width, channels) in [0, 1]; "
                f"received dtype {keras.backend.standardize_dtype(x.dtype)} and shape {tuple(x.shape)}."
            )
        x = ops.cast(x, "float32")
        valid = ops.logical_and(x >= 0.0, x <= 1.0)
        self.bad_images.update_state(ops.cast(ops.logical_not(ops.all(valid, axis=(1, 2, 3))), "float32"))
        classes = self.model.output_shape[-1]
        if len(y.shape) == 2 and y.shape[1] == classes:
            soft = ops.cast(y, "float32")
            valid = ops.logical_and(ops.all(soft >= 0.0, axis=1), ops.abs(ops.sum(soft, axis=1) - 1.0) < 1e-2)
            self.bad_labels.update_state(ops.cast(ops.logical_not(valid), "float32"))
            return ops.clip(x, 0.0, 1.0), y, soft
        if len(y.shape) > 2 or (len(y.shape) == 2 and y.shape[1] != 1) or "int" not in str(y.dtype):
            raise ValueError(
                f"y must be integer class indices of shape (batch,) or soft labels of shape (batch, {classes}); "
                f"received dtype {keras.backend.standardize_dtype(y.dtype)} and shape {tuple(y.shape)}."
            )
        last = classes - 1
        labels = ops.cast(ops.reshape(y, (-1,)), "int32")
        accepted = ops.clip(labels, 0, last)
        self.bad_labels.update_state(ops.cast(ops.not_equal(labels, accepted), "float32"))
        return ops.clip(x, 0.0, 1.0), accepted, accepted

    def _check_arrays(self, x, y):
        if not isinstance(x, np.ndarray) and not ops.is_tensor(x):
            return  # streams are checked as they pass
        x = check_images(x)
        if y is None:
            raise ValueError("y must be given: an attack needs labels; received None.")
        labels = ops.convert_to_numpy(y)
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        check_labels(labels, x.shape[0], self.model.output_shape[-1])


class _InputCheck(keras.callbacks.Callback):
    """Raises what the compiled step can only count."""

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


def _with_input_check(callbacks, trainer):
    check = _InputCheck(trainer)
    if isinstance(callbacks, keras.callbacks.CallbackList):
        # `fit` hands the list that it was given on to `evaluate`.
        if not any(isinstance(callback, _InputCheck) for callback in callbacks.callbacks):
            callbacks.callbacks.append(check)
        return callbacks
    return [check, *(callbacks if isinstance(callbacks, (list, tuple)) else [callbacks] if callbacks else [])]


def _check_loss(loss):
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
