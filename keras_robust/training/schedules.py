"""Learning-rate schedules, counted in updates of the weights."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust.checks import check_count, check_number
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a cosine, linearly interpolated between the epochs (Singh et al. 2023, training recipe).

    The rate at the integer epoch e is, with peak p, final rate f, E epochs and w epochs of warm-up,

        start + (p - start) e / w                            for e <= w
        f + (p - f) (1 + cos(pi (e - w) / (E - w))) / 2      for w < e <= E

    and update s of an epoch of S updates gets rate(e) (1 - s / S) + rate(e + 1) s / S. Beyond the last epoch the rate
    stays at f.

    Args:
        peak: rate after the warm-up.
        epochs: E.
        steps_per_epoch: S, updates of the weights per epoch.
        warmup_epochs: w, at most E; by default 10, or 20 where there are more than 100 epochs, and never more than a
            fifth of the epochs.
        start: rate of the first update; by default 1e-4 of the peak.
        final: rate after the last update.

    Raises:
        ValueError: an argument out of its range.

    Example:
        >>> schedule = WarmupCosine(1e-3, epochs=50, steps_per_epoch=1000)
        >>> [round(float(schedule(step)), 6) for step in (0, 5000, 10000)]
        [0.0, 0.0005, 0.001]
    """

    def __init__(
        self,
        peak: float,
        epochs: int,
        steps_per_epoch: int,
        warmup_epochs: int | None = None,
        start: float | None = None,
        final: float = 5e-6,
    ) -> None:
        super().__init__()
        self.peak = check_number("peak", peak)
        self.epochs = check_count("epochs", epochs)
        self.steps_per_epoch = check_count("steps_per_epoch", steps_per_epoch)
        self.warmup_epochs = default_warmup(epochs) if warmup_epochs is None else warmup_epochs
        check_count("warmup_epochs", self.warmup_epochs, least=0)
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs must be at most epochs={epochs}; received {warmup_epochs!r}.")
        self.start = 1e-4 * self.peak if start is None else check_number("start", start)
        self.final = check_number("final", final)
        self.rates = np.array([self._rate(epoch) for epoch in range(self.epochs + 1)], "float32")

    def _rate(self, epoch: int) -> float:
        warm, cosine = self.warmup_epochs, self.epochs - self.warmup_epochs
        if epoch < warm or cosine == 0:
            return self.start + (self.peak - self.start) * epoch / warm
        return self.final + 0.5 * (self.peak - self.final) * (1.0 + np.cos(np.pi * (epoch - warm) / cosine))

    def __call__(self, step: Any) -> Tensor:
        step = ops.minimum(ops.cast(step, "int32"), self.epochs * self.steps_per_epoch)
        rates = ops.convert_to_tensor(self.rates)
        epoch = ops.minimum(step // self.steps_per_epoch, self.epochs - 1)
        share = ops.cast(step - epoch * self.steps_per_epoch, "float32") / float(self.steps_per_epoch)
        return ops.take(rates, epoch) * (1.0 - share) + ops.take(rates, epoch + 1) * share

    def get_config(self) -> dict[str, Any]:
        names = ("peak", "epochs", "steps_per_epoch", "warmup_epochs", "start", "final")
        return {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable("keras_robust")
class WarmupPolynomial(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then polynomial decay to zero, by update: what segmentation models are trained with.

    With peak p, N updates in all and W of them warm-up, the rate of update t is

        start + (p - start) t / W                for t < W
        p (1 - (t - W) / (N - W))^power          for W <= t <= N, and 0 beyond

    Args:
        peak: rate after the warm-up.
        epochs, steps_per_epoch: N is their product.
        warmup_epochs: W in epochs, less than `epochs`.
        power: 1 for linear decay (Croce, Singh & Hein 2024), 0.9 for what is usual in segmentation.
        start: rate of the first update; by default 1e-5 of the peak.

    Raises:
        ValueError: an argument out of its range.

    Example:
        >>> schedule = WarmupPolynomial(1e-3, epochs=50, steps_per_epoch=100, warmup_epochs=10)
        >>> [round(float(schedule(step)), 6) for step in (1000, 3000, 5000)]
        [0.001, 0.0005, 0.0]
    """

    def __init__(
        self,
        peak: float,
        epochs: int,
        steps_per_epoch: int,
        warmup_epochs: int = 0,
        power: float = 1.0,
        start: float | None = None,
    ) -> None:
        super().__init__()
        self.peak = check_number("peak", peak)
        self.epochs = check_count("epochs", epochs)
        self.steps_per_epoch = check_count("steps_per_epoch", steps_per_epoch)
        self.warmup_epochs = check_count("warmup_epochs", warmup_epochs, least=0)
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be less than epochs={epochs}; received {warmup_epochs!r}.")
        self.power = check_number("power", power)
        self.start = 1e-5 * self.peak if start is None else check_number("start", start)

    def __call__(self, step: Any) -> Tensor:
        step = ops.cast(step, "float32")
        warm = float(self.warmup_epochs * self.steps_per_epoch)
        left = 1.0 - (step - warm) / float(self.epochs * self.steps_per_epoch - warm)
        decayed = self.peak * ops.power(ops.clip(left, 0.0, 1.0), self.power)
        rising = self.start + (self.peak - self.start) * step / max(warm, 1.0)
        return ops.where(step < warm, rising, decayed)

    def get_config(self) -> dict[str, Any]:
        names = ("peak", "epochs", "steps_per_epoch", "warmup_epochs", "power", "start")
        return {name: getattr(self, name) for name in names}


def default_warmup(epochs: int) -> int:
    """Epochs of warm-up in the published scheme, shortened where a run is short."""
    return min(20 if epochs > 100 else 10, epochs // 5)


@keras.saving.register_keras_serializable("keras_robust")
class PerUpdate(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that counts updates where Keras counts the micro-batches of gradient accumulation."""

    def __init__(self, schedule: Any, steps: int) -> None:
        super().__init__()
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step: int | keras.Variable) -> Tensor:
        return self.schedule(step // self.steps)

    def get_config(self) -> dict[str, Any]:
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PerUpdate":
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["steps"])
