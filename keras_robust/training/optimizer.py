"""AdamW with the weight-decay groups of the published training."""

from typing import Any

import keras
from keras import ops

from keras_robust.models import architecture_of


def undecayed(model: keras.Model) -> list[keras.Variable]:
    """The trainable weights of a model that take no weight decay.

    The published rule (Singh et al. 2023) goes by PyTorch's names for ConvNeXt and ResNet: biases and batch norms are
    left out, scales of LayerNorm and LayerScale are decayed (PyTorch calls LayerNorm's shift a bias too). There a
    batch norm of a ResNet's shortcut slips through, for it is called `downsample.1`: here all batch norms are treated
    alike. For every other family, and for models that are not of this package, each weight of rank 1 or less is left
    out; class tokens and position embeddings, of higher rank, are decayed.

    Args:
        model: a `keras.Model`.

    Returns:
        A list of `keras.Variable`.

    Example:
        >>> [w.path for w in undecayed(kr.models.create("vit_tiny")) if "head" in w.path]
        ['head/bias']
    """
    architecture = architecture_of(model)
    if architecture is None or not architecture.scales_decay:
        # XCiT's temperatures are vectors here, and of shape (heads, 1, 1) where the rule was published.
        weights = [weight for weight in model.trainable_weights if not weight.path.endswith("/temperature")]
        return [weight for weight in weights if len(weight.shape) <= 1]
    batch_norms = {_layer(weight) for weight in model.weights if weight.path.endswith("/moving_mean")}
    return [
        weight
        for weight in model.trainable_weights
        if weight.path.rsplit("/", 1)[1] in ("bias", "beta") or _layer(weight) in batch_norms
    ]


def _layer(weight: Any) -> Any:
    return weight.path.rsplit("/", 1)[0]


# On PyTorch Keras has optimizers of its own, which update all weights at once; this is one of them there. None is made
# to find out: its variables would initialise TensorFlow's devices, which a program may want to configure first.
_AdamW: Any = type(keras.optimizers.AdamW.__new__(keras.optimizers.AdamW))


@keras.saving.register_keras_serializable("keras_robust")
class AdamW(_AdamW):
    """AdamW (Loshchilov & Hutter 2019, algorithm 2) with epsilon where the paper and PyTorch have it.

    Keras adds epsilon to the square root of the second moment before its bias correction, which at update t makes it
    worth epsilon / sqrt(1 - beta_2^t): weights with small gradients, as behind a LayerScale of 1e-6, then move less in
    the first updates. Arguments are those of `keras.optimizers.AdamW`.

    Example:
        >>> optimizer = AdamW(1e-3, weight_decay=0.05, beta_2=0.95, epsilon=1e-8)
        >>> optimizer.get_config()["epsilon"]
        1e-08
    """

    @property
    def epsilon(self) -> Any:
        """What Keras adds at this update."""
        if not self.built:
            return self._epsilon
        update = ops.cast(self.iterations + 1, "float32")
        return self._epsilon * ops.sqrt(1.0 - ops.power(ops.cast(self.beta_2, "float32"), update))

    @epsilon.setter
    def epsilon(self, value: float) -> None:
        self._epsilon = value

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self._epsilon}


def adamw(
    model: keras.Model,
    learning_rate: float,
    weight_decay: float = 0.05,
    betas: Any = (0.9, 0.95),
    epsilon: float = 1e-8,
    accumulate: int = 1,
) -> keras.optimizers.Optimizer:
    """AdamW for a model, with its weight-decay groups, and updates as PyTorch's: see `AdamW`.

    Args:
        model: what is trained: its weights must exist, and stay the same.
        learning_rate: a number or a schedule.
        weight_decay: w of `weight -= learning rate * w * weight`, before the step of Adam.
        betas: of the first and second moment.
        epsilon: of `AdamW`.
        accumulate: micro-batches whose gradients are averaged for one update.

    Example:
        >>> schedule = kr.training.WarmupCosine(1e-3, epochs=50, steps_per_epoch=1000)
        >>> trainer.compile(adamw(model, schedule), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    """
    optimizer = AdamW(
        learning_rate,
        weight_decay=weight_decay,
        beta_1=betas[0],
        beta_2=betas[1],
        epsilon=epsilon,
        gradient_accumulation_steps=accumulate if accumulate > 1 else None,
        name="adamw",
    )
    optimizer.exclude_from_weight_decay(var_list=undecayed(model))
    return optimizer


def of_any_backend(config: Any) -> Any:
    """A saved `compile` configuration whose optimizers are Keras' public classes.

    On PyTorch, Keras 3.15 saves the classes of that backend, which on another backend load and then fail in `fit`.
    """
    if isinstance(config, (list, tuple)):
        return [of_any_backend(item) for item in config]
    if not isinstance(config, dict):
        return config
    config = {name: of_any_backend(value) for name, value in config.items()}
    if ".torch.optimizers." in str(config.get("module")):
        config |= {"module": "keras.optimizers", "registered_name": None}
    return config
