"""Guards of a training: signs that it has broken."""

import math
from collections.abc import Sequence

from keras_robust.recipes.datasets import ValidationFeed


class TrainingBroken(RuntimeError):
    """A loss that is not finite, or catastrophic overfitting; the message says what was seen and what can be done."""


class Preempted(SystemExit):
    """The run was told to end (SIGTERM) and has written a checkpoint: exit code 75, on which a scheduler can requeue.

    75 is EX_TEMPFAIL of sysexits.h: try again later.
    """

    def __init__(self) -> None:
        super().__init__(75)


def check_classes(known: Sequence[str] | None, of_data: Sequence[str], where: str) -> None:
    """Refuses a head whose classes are not those of the data, in their order: its answers would be taken for others.

    Args:
        known: names of the outputs of what training starts from, None where it does not know them.
        of_data: names of the data's classes.
        where: what training starts from.
    """
    if known is not None and tuple(known) != tuple(of_data):
        raise ValueError(
            f"start.new must be head where training starts from other classes, or from another order of them: {where} "
            f"has {', '.join(known[:10])}, the data have {', '.join(of_data[:10])}."
        )


def of_start(accuracy: float, validation: ValidationFeed) -> str | None:
    """A warning about a model that answers no better than by one class before it is trained; None for others."""
    if not validation.is_chance(accuracy):
        return None
    return (
        f"before training the model answers {accuracy:.1%} of the validation images correctly, no more than one "
        f"answer for all ({validation.chance:.1%}). With a new head that is so; otherwise pixels, classes or weights "
        "do not fit."
    )


def of_end(score: float, validation: ValidationFeed) -> str | None:
    """What to do after a training whose best model answers no better than by one class; None after others."""
    if not validation.is_chance(score):
        return None
    return (
        f"That is no more than one answer for all images has ({validation.chance:.1%}): nothing was learned. Start "
        "from weights that know something (--start, --model), train for more steps (training.epochs), or let the "
        "radius rise (attack.eps_warmup_epochs=5)."
    )


def of_shared_images(shared: Sequence[str], n_examples: int) -> str | None:
    """A warning about validation images, by name, that are training images, too; None where there are none."""
    if not shared:
        return None
    return (
        f"{len(shared)} of the {n_examples} validation images are training images, too, byte for byte, {shared[0]} "
        "among them: the accuracy on them says nothing of new images."
    )


def check_finite(logs: dict[str, float], step: int) -> None:
    """Raises `TrainingBroken` where the loss in the logs of a step is not finite."""
    loss = logs.get("loss", 0.0)
    if not math.isfinite(loss):
        raise TrainingBroken(
            f"the training loss is {loss} at step {step}. Usual reasons: a learning rate that is too high, float16 "
            "where bfloat16 or float32 is needed (training.precision), images or labels that are damaged. "
            "guard.action=rollback goes on from the last good checkpoint with half the learning rate."
        )


def check_overfitting(history: list[dict[str, float]], share: float, n_examples: int) -> None:
    """Raises `TrainingBroken` on catastrophic overfitting (Wong et al. 2020; Andriushchenko & Flammarion 2020).

    That is: robust accuracy under the multi-step attack of validation, in inference mode, has fallen below `share` of
    its best, by more than three standard errors, while training accuracy under the training attack is not below the
    same share of its best.

    Args:
        history: what each validated epoch logged, with `accuracy` and `val_robust_accuracy`.
        share: of the best that is tolerated.
        n_examples: on which robust accuracy was measured.
    """
    if len(history) < 2:
        return
    robust, training = ([epoch[name] for epoch in history] for name in ("val_robust_accuracy", "accuracy"))
    best = max(robust[:-1])
    error = math.sqrt(best * (1.0 - best) / n_examples)
    if robust[-1] < share * best and best - robust[-1] > 3.0 * error:
        if training[-1] < share * max(training[:-1]):
            return  # training fell as well: a divergence that may recover, not an attack that is fooled
        raise TrainingBroken(
            f"catastrophic overfitting: under the multi-step attack robust accuracy fell to {robust[-1]:.1%} (best "
            f"{best:.1%}) while training accuracy is {training[-1]:.1%}. The model has learned to fool the attack in "
            "training. More attack steps (attack.n_iter), attack.kind=n-fgsm, a lower learning rate or eps warm-up "
            "(attack.eps_warmup_epochs) help; guard.action=rollback goes on from the last good checkpoint with half "
            "the learning rate."
        )
