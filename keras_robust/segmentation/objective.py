"""The objective of segmentation: cross-entropy of pixels, of the logits and of an auxiliary head's."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_robust.checks import check_number
from keras_robust.segmentation.losses import CrossEntropy
from keras_robust.training.objectives import AdversarialCrossEntropy
from keras_robust.types import Tensor


@keras.saving.register_keras_serializable("keras_robust")
class PixelCrossEntropy(AdversarialCrossEntropy):
    """Mean cross-entropy of each image's pixels, those of label -1 left out; every image counts alike.

    It is both the loss that `compile` takes, of logits (batch, height, width, classes), and the objective of a model
    with an auxiliary head, whose loss it adds.

    Args:
        class_weights: None, or a number for each class; see `kr.segmentation.losses.balancing_weights`.
        auxiliary_weight: of the auxiliary head's loss; 0.4 in the publication.

    Example:

    >>> net = kr.segmentation.create("upernet_convnext_atto", num_classes=3)
    >>> loss = kr.segmentation.PixelCrossEntropy()
    >>> attack = kr.attacks.PGD(kr.ThreatModel("Linf", 4 / 255), n_iter=5, step_size=0.01, returns="last")
    >>> trainer = kr.AdversarialModel(kr.segmentation.with_auxiliary_head(net), attack, objective=loss)
    >>> trainer.compile("adamw", loss)
    """

    auxiliary = True

    def __init__(
        self, class_weights: Sequence[float] | None = None, auxiliary_weight: float = 0.4, **options: Any
    ) -> None:
        super().__init__(**options)
        self.auxiliary_weight = check_number("auxiliary_weight", auxiliary_weight)
        self._loss = CrossEntropy(class_weights)

    def call(self, y_true: Tensor, y_pred: Any) -> Tensor:
        if not isinstance(y_pred, (list, tuple)):
            return self._loss(y_pred, y_true)
        logits, *others = y_pred
        return self._loss(logits, y_true) + self.auxiliary_weight * sum(self._loss(other, y_true) for other in others)

    def get_config(self) -> dict[str, Any]:
        own = {"class_weights": self._loss.class_weights, "auxiliary_weight": self.auxiliary_weight}
        return {**super().get_config(), **own}
