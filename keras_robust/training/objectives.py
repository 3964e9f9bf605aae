"""Objectives of a training step: the loss on adversarial images, alone or beside that on clean ones."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_robust import losses
from keras_robust.checks import check_number
from keras_robust.types import Tensor

if TYPE_CHECKING:
    from keras_robust.attacks.pgd import PGD


@keras.saving.register_keras_serializable("keras_robust")
class AdversarialCrossEntropy(keras.losses.Loss):
    """The compiled loss on the adversarial batch alone (Madry et al. 2018): what the paper trains with.

    Other objectives are subclasses with `paired = True`, whose `call(y_true, (adversarial, clean))` gives a loss per
    example, float32 (batch,), from labels (class indices or soft) and two sets of logits (batch, classes), both of the
    forward pass in training mode.

    Attributes:
        paired: whether the clean batch passes through the model as well, which costs 3 more forward-equivalents.
        auxiliary: whether it takes what a model with auxiliary heads returns in training, `call(y_true, (logits, *those
            of the other heads))`.
    """

    paired = False
    auxiliary = False

    def __init__(self, reduction: str = "sum_over_batch_size", name: str | None = None) -> None:
        super().__init__(name=name or type(self).__name__.lower(), reduction=reduction)

    def attack_labels(self, model: Callable, x: Tensor, labels: Tensor) -> Tensor:
        """The labels that the attack moves the images away from; `model` is in inference mode."""
        return labels

    def check_attack(self, attack: Any) -> None:
        """Raises a ValueError for an attack that cannot serve this objective."""


@keras.saving.register_keras_serializable("keras_robust")
class TRADES(AdversarialCrossEntropy):
    """CE(f(x), y) + beta KL(f(x) || f(x_adv)) (Zhang et al. 2019, equation 5).

    The attack maximises the same divergence, which is that of the cross-entropy against the clean prediction as a soft
    label: only their difference, the entropy of the clean prediction, does not depend on x_adv.

    Args:
        beta: weight of robustness against accuracy, 1 / lambda in the publication; 6 in its experiments.

    Raises:
        ValueError: beta out of range; in `AdversarialModel`: an attack that starts at the image itself, where the
            divergence has its minimum and no gradient.

    Example:
        >>> attack = kr.attacks.PGD(threat, n_iter=10, random_start=True, returns="last")
        >>> trainer = kr.AdversarialModel(model, attack, objective=TRADES(beta=6.0))
    """

    paired = True

    def __init__(self, beta: float = 6.0, **options: Any) -> None:
        super().__init__(**options)
        self.beta = check_number("beta", beta)

    def attack_labels(self, model: Callable | keras.Model, x: Tensor, labels: Tensor | None) -> Tensor:
        return ops.softmax(ops.cast(model(x), "float32"), axis=-1)

    def check_attack(self, attack: "PGD") -> None:
        if not attack.random_start:
            raise ValueError(
                "attack must have random_start=True with TRADES: at the image itself the divergence has no gradient, "
                f"and the attack would do nothing; received {attack!r}."
            )

    def call(self, y_true: Tensor, y_pred: tuple[Tensor, Tensor]) -> Tensor:
        adversarial, clean = y_pred
        return losses.cross_entropy(clean, y_true) + self.beta * divergence(clean, adversarial)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self.beta}


@keras.saving.register_keras_serializable("keras_robust")
class MART(AdversarialCrossEntropy):
    """Misclassification-aware training (Wang et al. 2020, equation 11).

    BCE(f(x_adv), y) + beta KL(f(x) || f(x_adv)) (1 - p_y(x)), with p the softmax of the logits and
    BCE = -log p_y(x_adv) - log(1 - max_{k != y} p_k(x_adv)). With soft labels p_y is the expectation under the label,
    and y in the maximum its largest entry. The attack maximises the cross-entropy.

    Args:
        beta: weight of the divergence; 5 in the publication (lambda).

    Example:
        >>> trainer = kr.AdversarialModel(model, attack, objective=MART(beta=5.0))
    """

    paired = True

    def __init__(self, beta: float = 5.0, **options: Any) -> None:
        super().__init__(**options)
        self.beta = check_number("beta", beta)

    def call(self, y_true: Tensor, y_pred: tuple[Tensor, Tensor]) -> Tensor:
        adversarial, clean = (ops.cast(logits, "float32") for logits in y_pred)
        classes = ops.arange(adversarial.shape[-1], dtype="int32")[None]
        own = ops.equal(classes, losses.class_of(y_true)[:, None])
        runner_up = ops.argmax(ops.where(own, -float("inf"), adversarial), axis=-1)
        # log(1 - p_k) as the log of the other probabilities' sum, which loses no digits where p_k is near 1.
        others = ops.where(ops.equal(classes, ops.cast(runner_up, "int32")[:, None]), -float("inf"), adversarial)
        rest = ops.logsumexp(others, axis=-1) - ops.logsumexp(adversarial, axis=-1)
        boosted = losses.cross_entropy(adversarial, y_true) - rest
        label = ops.cast(y_true if len(y_true.shape) == 2 else own, "float32")
        doubt = 1.0 - ops.sum(label * ops.softmax(clean, axis=-1), axis=-1)
        return boosted + self.beta * divergence(clean, adversarial) * doubt

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self.beta}


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(softmax(first) || softmax(second)) of logits, float32 (batch,)."""
    log_p, log_q = (ops.log_softmax(ops.cast(logits, "float32"), axis=-1) for logits in (first, second))
    return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


OBJECTIVES: dict[str, type[AdversarialCrossEntropy]] = {
    "adversarial": AdversarialCrossEntropy,
    "trades": TRADES,
    "mart": MART,
}
