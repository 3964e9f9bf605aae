"""SEA, the segmentation ensemble attack: three attacks, of which the worst case counts.

Croce, Singh and Hein, "Towards Reliable Evaluation and Fast Training of Robust Semantic Segmentation Models", 2024,
section 3.
"""

from collections.abc import Sequence

from keras_robust.attacks import APGD
from keras_robust.segmentation.losses import CrossEntropy, jensen_shannon
from keras_robust.threat import ThreatModel

ITERATIONS = 300  # of each attack, in the publication


def sea(
    threat: ThreatModel, class_weights: Sequence[float], n_iter: int = ITERATIONS, seed: int = 0
) -> dict[str, APGD]:
    """The attacks by name: APGD from a random start, whose radius shrinks from 2 eps over 1.5 eps to eps.

    They differ in the loss that is differentiated; the step follows the cross-entropy of all pixels, and of the points
    in the ball that with the fewest right pixels is returned.

    Args:
        threat: under Linf.
        class_weights: of the balanced loss, a number for each class; see `balancing_weights`.
        n_iter: gradient steps of each attack.

    Raises:
        ValueError: another norm than Linf, fewer than 3 steps, or weights that are none.

    Example:

    >>> list(sea(kr.ThreatModel("Linf", 4 / 255), class_weights=(0.3, 0.7)))
    ['masked-ce-balanced', 'masked-ce', 'js']
    """
    if threat.norm != "Linf":
        raise ValueError(f"threat must be under Linf; received {threat}.")
    losses = {
        "masked-ce-balanced": CrossEntropy(class_weights, only_correct=True),
        "masked-ce": CrossEntropy(only_correct=True),
        "js": jensen_shannon,
    }
    return {
        name: APGD(
            threat,
            n_iter=n_iter,
            loss=loss,
            tracked_loss="ce",
            schedule="shrinking",
            random_start=True,
            seed=seed,
            returns="misclassified",
        )
        for name, loss in losses.items()
    }
