"""AdversarialModel: a Keras model that attacks every batch before it trains on it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust import backend, losses, random
from keras_robust.attacks.apgd import APGD
from keras_robust.attacks.base import Attack, is_zero, loss_scale
from keras_robust.backend import keras_private
from keras_robust.batch_checks import check_logits_shape, check_size_of_logits
from keras_robust.checks import check_count, check_number
from keras_robust.model_graph import check_is_graph, check_logits, check_pixels, outputs_on_noise
from keras_robust.training.class_counts import ClassCounts
from keras_robust.training.input_checks import (
    accepted,
    check_arrays,
    check_held_out,
    check_kinds,
    check_loss,
    named,
    with_input_check,
)
from keras_robust.training.objectives import AdversarialCrossEntropy
from keras_robust.training.optimizer import of_any_backend
from keras_robust.training.schedules import PerUpdate
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class AdversarialModel(backend.TrainStep, keras.Model):
    """Trains `model` on adversarial images: min over weights of max over the ball of the loss (Madry et al. 2018).

    Each training step attacks the batch with the model in inference mode and its weights constant, then hands the
    adversarial images to Keras' own training step. Optimizer, loss, metrics, sample weights, mixed precision, jit and
    callbacks are used as with any Keras model.

    Args:
        model: a built Keras model from float images (batch, height, width, channels) in [0, 1] to logits, (batch,
            classes) or for dense labels (batch, height, width, classes). One of several outputs has its logits first,
            is attacked and evaluated by these alone, and needs an objective that takes the others.
        attack: the training attack, e.g. `APGD(threat, n_iter=2)`. Its random draws, if any, depend on its seed, the
            number of the update and the position in the batch. A sequence of attacks: each update draws one of them
            with equal chances (robustness to several norms: Croce & Hein 2022, "Adversarial robustness against
            multiple and single lp-threat models via quick fine-tuning"). None: clean training.
        validation_attack: attack of `evaluate` and of validation in `fit`; by default 10-step APGD under the (first)
            attack's threat model that returns misclassified images.
        eps_warmup_steps: updates over which the radius rises linearly to the attack's eps; adversarial training at a
            large radius from the first step on can collapse to a constant predictor.
        objective: what is minimised: `kr.training.AdversarialCrossEntropy()`, the compiled loss on the adversarial
            batch, if not given; or `TRADES`, `MART`, which take the compiled loss for validation only.
        augmentation: None or a callable `(images, labels, keys)` to (float images in [0, 1], labels) in `keras.ops`,
            run inside the compiled step before the attack. Labels must be soft, (batch, classes), before and after.
        ema_decay: None or the decay d in [0, 1) of moving averages of all weights, batch-norm statistics included:
            average = d average + (1 - d) weight after every update, from the weights at the start of training. See
            `averaged_weights`.
        diagnostics: also log, in training and validation, `attack_gain`, the rise of the loss by the attack (in
            training from its first point on, and not for attacks that return the last point, whose loss nobody
            computes), and `zero_gradients`, the share of images whose gradient at the first point is zero everywhere,
            so that the attack stands still.
        seed: of the augmentation and of the choice among attacks.

    Raises:
        ValueError: arguments of the wrong kind; in `compile`: a loss that does not expect logits, or a combination
            that Keras cannot run.

    Logs of training: `loss` and metrics on the adversarial batch. Logs of validation: `val_loss` and metrics on clean
    images, and `val_robust_accuracy`, the share of images that are classified correctly clean and under attack; with
    dense labels the mean over the images of the share of their pixels, the smaller one of clean and under attack.

    Example:
        >>> attack = kr.attacks.APGD(kr.ThreatModel("Linf", 4 / 255), n_iter=2)
        >>> trainer = kr.AdversarialModel(model, attack)
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> trainer.compile(keras.optimizers.AdamW(1e-3), loss, metrics=["accuracy"])
        >>> history = trainer.fit(x, y, validation_data=(x_val, y_val), verbose=0)
        >>> sorted(history.history)
        ['accuracy', 'loss', 'val_accuracy', 'val_loss', 'val_robust_accuracy']
    """

    compiled_model: Callable | None = None  # the training pass, where the backend compiles it by itself

    def __init__(
        self,
        model: Callable | keras.Model,
        attack: Any,
        validation_attack: "Attack | None" = None,
        eps_warmup_steps: int = 0,
        objective: Any = None,
        augmentation: Callable | str | None = None,
        ema_decay: float | None = None,
        diagnostics: bool = False,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if not isinstance(model, keras.Model) or not model.built:
            raise ValueError(f"model must be a built keras.Model; received {model!r}.")
        attacks = tuple(attack) if isinstance(attack, (list, tuple)) else () if attack is None else (attack,)
        validation_attack = validation_attack or _default_validation(attacks)
        for name, value in (*(("attack", each) for each in attacks), ("validation_attack", validation_attack)):
            if not isinstance(value, Attack):
                raise ValueError(
                    f"{name} must be an Attack, e.g. kr.attacks.APGD(threat, n_iter=2); received {value!r}."
                )
            if not value.threat.is_bounded:
                raise ValueError(f"{name} must have a threat model with a radius; received {value!r}.")
        check_is_graph(model)
        several = isinstance(model.output_shape, list)
        attacked = keras.Model(model.inputs[0], model.outputs[0], name=model.name) if several else model
        num_classes = check_logits_shape(attacked.output_shape, dense=True)
        if len(attacked.output_shape) == 4:
            check_size_of_logits(attacked.output_shape, attacked.input_shape)
        check_logits(attacked, outputs_on_noise(attacked))
        check_pixels(model)
        objective = AdversarialCrossEntropy() if objective is None else objective
        if not isinstance(objective, AdversarialCrossEntropy):
            raise ValueError(f"objective must be one of kr.training's, e.g. TRADES(); received {objective!r}.")
        if several and not objective.auxiliary:
            raise ValueError(
                f"objective must be one that takes the outputs of auxiliary heads, as model has {len(model.outputs)}: "
                f"kr.segmentation.PixelCrossEntropy(auxiliary_weight=0.4); received {objective!r}."
            )
        if augmentation is not None and not callable(augmentation):
            raise ValueError(f"augmentation must be callable; received {augmentation!r}.")
        if ema_decay is not None and not check_number("ema_decay", ema_decay) < 1.0:
            raise ValueError(f"ema_decay must be None or in [0, 1); received {ema_decay!r}.")
        for each in attacks:
            objective.check_attack(each)
        # The inner model casts what it is given; casting here as well would round the adversarial pixels.
        super().__init__(**{"dtype": model.dtype_policy, "autocast": False, **options})
        self.model = model
        self.num_classes, self.dense = num_classes, len(attacked.output_shape) == 4
        self.attack = attack
        self.attacks = attacks
        self.validation_attack: Attack = validation_attack  # type: ignore[assignment]
        self.eps_warmup_steps = check_count("eps_warmup_steps", eps_warmup_steps, least=0)
        self.objective = objective
        self.augmentation = augmentation
        self.ema_decay = ema_decay
        self.diagnostics = bool(diagnostics)
        self.seed = check_count("seed", seed, least=0)
        with backend.gradients_possible():  # variables made without could not be changed later
            self.counter = self._state("counter", (), "int32")
            self.averaged = [] if ema_decay is None else [weight for weight in model.weights if "float" in weight.dtype]
            self.weight_averages = [self._state(f"average_{i}", w.shape, w.dtype) for i, w in enumerate(self.averaged)]
            self.robust_accuracy = keras.metrics.Mean(name="robust_accuracy")
            self.bad_images = keras.metrics.Sum(name="bad_images")
            self.bad_labels = keras.metrics.Sum(name="bad_labels")
            # What a figure of robustness is doubted by, at the end of an evaluation.
            self.predicted = ClassCounts(num_classes, name="predicted_classes")
            self.labelled = ClassCounts(num_classes, name="labelled_classes")
            self.without_gradient = keras.metrics.Mean(name="without_gradient")
            self.attack_gain: Any = keras.metrics.Mean(name="attack_gain") if self.diagnostics else None
            self.zero_gradients: Any = keras.metrics.Mean(name="zero_gradients") if self.diagnostics else None
        self.built = True

    def _state(self, name: str, shape: Any, dtype: str) -> keras.Variable:
        return self.add_weight(shape=shape, dtype=dtype, initializer="zeros", trainable=False, name=name)

    def call(self, x: Any, training: bool | None = None) -> Any:
        if isinstance(x, (list, tuple)):  # the adversarial and the clean batch of a paired objective
            return tuple(self.call(each, training) for each in x)
        if training and self.compiled_model is not None:
            outputs = self.compiled_model(x)
        else:
            outputs = self.model(x, training=training)
        if isinstance(outputs, (list, tuple)):  # of auxiliary heads, in training alone
            return tuple(outputs) if training else outputs[0]
        return outputs

    def compute_loss(
        self,
        x: Any = None,
        y: Tensor | None = None,
        y_pred: Any = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        if not isinstance(y_pred, (list, tuple)):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        loss = self.objective(y, tuple(y_pred), sample_weight)
        return sum((keras_private.additional_loss(self, extra) for extra in self.losses), start=loss)

    def compute_metrics(self, x: Any, y: Tensor, y_pred: Any, sample_weight: Tensor | None = None) -> dict[str, Tensor]:
        adversarial = y_pred[0] if isinstance(y_pred, (list, tuple)) else y_pred
        return super().compute_metrics(x, y, adversarial, sample_weight)

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer | str = "adamw",
        loss: Any = None,
        *,
        steps_per_execution: int = 1,
        **options: Any,
    ) -> None:
        """Configures training as `keras.Model.compile` does; `loss` must take logits.

        `jit_compile=True` on the PyTorch backend compiles the attack and the training pass by torch.compile, at the
        first step with each shape of the batch. There "auto" is eager.

        Raises:
            ValueError: a loss with `from_logits=False`; an optimizer with `use_ema`; `steps_per_execution > 1` on the
                PyTorch backend where Keras does not take it; in the first step, `jit_compile=True` there with what
                PyTorch cannot trace: random layers, attacks whose course depends on the images (L1).
        """
        check_loss(loss)
        optimizer = keras.optimizers.get(optimizer)
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        accumulated = inner.gradient_accumulation_steps
        if inner.use_ema:
            raise ValueError(
                "optimizer must be one without use_ema=True, whose averages leave out batch-norm statistics and take "
                "the place of the weights at the end of fit: give AdversarialModel ema_decay=... instead."
            )
        if accumulated:
            schedule = keras_private.learning_rate_of(inner)
            if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule) and not isinstance(
                schedule, PerUpdate
            ):
                inner.learning_rate = PerUpdate(schedule, accumulated)
        with backend.gradients_possible():
            super().compile(optimizer, loss, steps_per_execution=steps_per_execution, **options)
        if self.augmentation is not None:
            # Keras would build these on a batch as it comes, whose images may be of another size and type.
            logits = keras.KerasTensor((1, self.num_classes))
            keras_private.build_loss_and_metrics(self, logits, logits)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(of_any_backend(config)))
        self.optimizer.build(self.trainable_variables)

    def fit(
        self,
        x: Any = None,
        y: np.ndarray | None = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: list[Any] | None = None,
        **options: Any,
    ) -> Any:
        """Trains as `keras.Model.fit` does.

        Callbacks that monitor `val_robust_accuracy` in mode "auto" take more for better.

        Raises:
            ValueError: pixels outside [0, 1] or not finite, integer images, labels out of range: before training for
                arrays, after the first batch and after every epoch for anything else; a `validation_split` that holds
                out all images of a class.
        """
        self._check_arrays(x, y, options.get("sample_weight"))
        validation = options.get("validation_data")
        if isinstance(validation, (list, tuple)) and len(validation) > 1:
            with named("validation_data"):
                self._check_arrays(validation[0], validation[1])
        if y is not None and options.get("validation_split"):
            check_held_out(y, float(options["validation_split"]))
        callbacks = with_input_check(callbacks, self)
        for callback in callbacks if isinstance(callbacks, list) else ():
            monitored = str(getattr(callback, "monitor", "")).removeprefix("val_")
            if monitored == self.robust_accuracy.name and getattr(callback, "mode", None) == "auto":
                callback.mode = "max"
        if y is None:  # a data set shuffles by itself: Keras warns of its own default
            options.setdefault("shuffle", False)
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, **options)

    def evaluate(
        self,
        x: list[np.ndarray] | np.ndarray | None = None,
        y: np.ndarray | None = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        callbacks: Any = None,
        **options: Any,
    ) -> dict[str, float] | list[float]:
        """Evaluates as `keras.Model.evaluate` does, with `robust_accuracy` under `validation_attack` besides."""
        self._check_arrays(x, y, options.get("sample_weight"))
        callbacks = with_input_check(callbacks, self)
        with backend.gradients_possible():
            return super().evaluate(x, y, batch_size, verbose, callbacks=callbacks, **options)

    def train_on_batch(self, x: np.ndarray, y: np.ndarray | None = None, *arguments: Any, **options: Any) -> float:
        self._check_arrays(x, y)
        return super().train_on_batch(x, y, *arguments, **options)

    def test_on_batch(self, x: np.ndarray, y: np.ndarray | None = None, *arguments: Any, **options: Any) -> Any:
        self._check_arrays(x, y)
        with backend.gradients_possible():
            return super().test_on_batch(x, y, *arguments, **options)

    def export(self, filepath: str, *arguments: Any, **options: Any) -> Any:
        """Exports the model that is trained, as `keras.Model.export` does; see also `kr.export.export`."""
        return self.model.export(filepath, *arguments, **options)

    def make_train_function(self, force: bool = False) -> Callable:
        # The step looks at the optimizer's moving averages before it is first applied.
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        if self.weight_averages and int(ops.convert_to_numpy(self.counter)) == 0:
            for weight, average in zip(self.averaged, self.weight_averages):
                average.assign(ops.convert_to_numpy(weight))
        return super().make_train_function(force)

    def _attack_batch(self, frozen: Callable, counter: Tensor, data: tuple[Any, ...]) -> tuple[Any, ...]:
        """The adversarial batch of one training step; `frozen` is the model with constant weights."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        check_kinds(x, y)
        per_update = self._micro_batches()
        update = counter // per_update
        index = backend.example_index(ops.shape(x)[0], ops.cast(counter % per_update, "int32"))
        if self.augmentation is not None:
            x, y = self.augmentation(x, y, random.example_keys(self.seed, update, index))
        x, y, labels = self._accepted(x, y)
        if not self.attacks:
            return x, y, sample_weight
        warm = 1.0
        if self.eps_warmup_steps:
            warm = ops.minimum((ops.cast(update, "float32") + 1.0) / self.eps_warmup_steps, 1.0)
        labels = self.objective.attack_labels(frozen, x, labels)

        def attacked(attack: Any) -> tuple[Any, ...]:
            first: list[Tensor] = []
            x_adv, loss = attack.perturb(
                frozen,
                x,
                labels,
                random.example_keys(attack.seed, update, index),
                attack.threat.eps * warm,
                loss_scale(self.model, attack.loss),
                observe=lambda loss, gradient, _: first.extend((loss, gradient)) if self.diagnostics else None,
            )
            if not self.diagnostics:
                return (ops.stop_gradient(x_adv),)
            gain = first[0] if loss is None else loss - first[0]
            return ops.stop_gradient(x_adv), gain, ops.cast(is_zero(first[1]), "float32")

        if len(self.attacks) == 1:
            x_adv, *seen = attacked(self.attacks[0])
        else:
            # The key of no example: all of them, and all devices, follow one draw.
            word = random.example_keys(self.seed, update, ops.full((1,), -1, dtype="int32"))[0][0]
            chosen = ops.bitwise_and(word, 0x7FFFFFFF) % len(self.attacks)
            x_adv, *seen = ops.switch(chosen, [lambda attack=attack: attacked(attack) for attack in self.attacks])
        if self.diagnostics:
            self._diagnose(*seen)
        return (x_adv, x) if self.objective.paired else x_adv, y, sample_weight

    def _update_averages(self) -> None:
        """Moves the averages (EMA) towards the weights; each backend's `train_step` calls it after an update."""
        if self.ema_decay is None:
            return
        updated = ops.equal(self.counter % self._micro_batches(), 0)
        rate = 1.0 - self.ema_decay
        rate = ops.where(updated, rate, 0.0) if self._micro_batches() > 1 else rate
        for weight, average in zip(self.averaged, self.weight_averages):
            average.assign_add(ops.cast(rate, average.dtype) * ops.subtract(weight, average))

    @contextmanager
    def averaged_weights(self) -> Iterator[Any]:
        """Inside this context the model has the averages for weights.

        Raises:
            ValueError: there are none (`ema_decay`).

        Example:
            >>> history = trainer.fit(x, y, verbose=0)
            >>> with trainer.averaged_weights():
            ...     accuracies = trainer.evaluate(x_val, y_val, verbose=0, return_dict=True)
        """
        if not self.weight_averages:
            raise ValueError("ema_decay must be given to AdversarialModel for it to average weights; it is None.")
        raw = [ops.convert_to_numpy(weight).copy() for weight in self.averaged]
        for weight, average in zip(self.averaged, self.weight_averages):
            weight.assign(ops.convert_to_numpy(average).copy())
        try:
            yield self.model
        finally:
            for weight, value in zip(self.averaged, raw):
                weight.assign(value)

    def _measure(self, frozen: Callable, data: tuple[Any, ...]) -> None:
        """Adds the batch to the robust accuracy under the validation attack."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        check_kinds(x, y)
        x, y, labels = self._accepted(x, y)
        attack = self.validation_attack
        keys = random.example_keys(attack.seed, 0, backend.example_index(ops.shape(x)[0]))
        first: list[Tensor] = []
        x_adv, _ = attack.perturb(
            frozen,
            x,
            labels,
            keys,
            loss_scale=loss_scale(self.model, attack.loss),
            observe=lambda loss, gradient, _: first.append(gradient),
        )
        clean, adversarial = frozen(x), frozen(x_adv)
        robust = ops.minimum(losses.correct(clean, labels), losses.correct(adversarial, labels))
        self.robust_accuracy.update_state(robust, sample_weight)
        predicted, labelled = ops.cast(ops.argmax(clean, axis=-1), "int32"), losses.class_of(labels)
        self.predicted.update_state(ops.where(labelled < 0, labelled, predicted), sample_weight)
        self.labelled.update_state(labelled, sample_weight)
        if first:
            self.without_gradient.update_state(ops.cast(is_zero(first[0]), "float32"), sample_weight)
        if self.diagnostics:
            gain = losses.cross_entropy(adversarial, labels) - losses.cross_entropy(clean, labels)
            self._diagnose(gain, ops.cast(is_zero(first[0]), "float32"))

    def _diagnose(self, gain: Tensor, zero: Tensor) -> None:
        self.attack_gain.update_state(gain)
        self.zero_gradients.update_state(zero)

    def get_metrics_result(self) -> dict[str, Tensor]:
        metrics = (self.bad_images, self.bad_labels, self.predicted, self.labelled, self.without_gradient)
        hidden = [metric.name for metric in metrics]
        return {name: value for name, value in super().get_metrics_result().items() if name not in hidden}

    def _training_logs(self, logs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Without what only validation measures, or nobody."""
        hidden = {self.robust_accuracy.name}
        if not self.attacks:
            hidden |= {"attack_gain", "zero_gradients"}
        elif any(attack.returns == "last" for attack in self.attacks):
            hidden.add("attack_gain")
        return {name: value for name, value in logs.items() if name not in hidden}

    def training_means(self) -> dict[str, float]:
        """What `fit` has logged of this epoch so far. Between two steps; waits until the device has done them."""
        self.synchronize()
        return {name: float(value) for name, value in self._training_logs(self.get_metrics_result()).items()}

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "model": serialize(self.model),
            "attack": serialize(list(self.attack) if isinstance(self.attack, tuple) else self.attack),
            "validation_attack": serialize(self.validation_attack),
            "objective": serialize(self.objective),
            "augmentation": serialize(self.augmentation),
            "eps_warmup_steps": self.eps_warmup_steps,
            "ema_decay": self.ema_decay,
            "diagnostics": self.diagnostics,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "AdversarialModel":
        config = dict(config)
        for name in ("model", "attack", "validation_attack", "objective", "augmentation"):
            config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
        return cls(**config)

    def _inner_optimizer(self) -> keras.optimizers.Optimizer:
        return getattr(self.optimizer, "inner_optimizer", self.optimizer)

    def _micro_batches(self) -> int:
        return self._inner_optimizer().gradient_accumulation_steps or 1

    def _accepted(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images in [0, 1], the labels for Keras and those for the attack; what was out of range is counted."""
        x, y, labels, bad_images, bad_labels = accepted(x, y, self.num_classes, self.dense)
        if None not in (shape := tuple(x.shape[1:])):
            for attack in (*self.attacks, self.validation_attack):
                if attack is not None:
                    attack.threat.check_images(shape)
        self.bad_images.update_state(ops.cast(bad_images, "float32"))
        self.bad_labels.update_state(ops.cast(bad_labels, "float32"))
        return x, y, labels

    def _check_arrays(self, x: Any, y: np.ndarray | None, sample_weight: np.ndarray | None = None) -> None:
        if isinstance(x, (np.ndarray, list, tuple, dict)) or ops.is_tensor(x):
            check_arrays(x, y, sample_weight, self.num_classes, self.dense)  # streams are checked as they pass


def _default_validation(attacks: tuple[Any, ...]) -> APGD | None:
    if not attacks or not isinstance(attacks[0], Attack):
        return None
    return APGD(attacks[0].threat, n_iter=10, returns="misclassified")
