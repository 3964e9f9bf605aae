"""AutoAttack: an ensemble of attacks without a parameter to tune, and warnings about its verdict.

The loop over attacks and the images that are left is that of `suite.py`.
"""

from typing import Any

from keras_robust.attacks.result import AttackResult
from keras_robust.attacks.suite import AttackSuite
from keras_robust.attacks.versions import FALLBACKS, PLANS, VERSIONS, ensemble
from keras_robust.batch_checks import check_batch, class_count
from keras_robust.checks import check_choice, check_count
from keras_robust.threat import ThreatModel

NOT_COVERED = (
    "AutoAttack is a test for deterministic, differentiable classifiers. Defences that adapt at test time, randomise "
    "or purify their input, or hide their gradients need adaptive attacks written for them."
)


class AutoAttack:
    """The field's standard evaluation of robustness: a fixed sequence of attacks, each on what the others left.

    Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks"; for L1 with the settings of Croce & Hein 2021, "Mind the box". Every success is confirmed by the
    uncompiled model in float32.

    Random draws are keyed by seed, attack and the image's place in the data set, so that what becomes of an image does
    not depend on the images beside it. At one batch size the result is the same to the last bit (PyTorch rounds rows
    of a batch by their position: there but for ties); at another batch size the same images are misclassified, but for
    ties. What is compiled for a Keras model is kept for its next evaluation and follows its weights, but not changes of
    its layers: attack a model that is built anew instead (`keras.models.clone_model`).

    Args:
        threat: the `ThreatModel`.
        version: "standard" (APGD on cross-entropy, targeted APGD, targeted FAB, Square), "short" (the first two),
            "plus" (six attacks, five restarts), "rand" (gradients averaged over 20 samples of a random output) or
            "fast" (APGD on cross-entropy and at two targets on all images, the whole of "standard" on a sample of what
            they leave: an estimate of what "standard" would give, with its interval, `AttackResult.robust`).
        batch_size: the most images attacked at a time, which bounds the memory.
        seed: of all random draws, in [0, 2**31).

    Raises:
        ValueError: an argument is not accepted.

    Calling it, `autoattack(model, x, y)`, with images (n, height, width, channels) in [0, 1] and class indices (n,),
    numpy or tensors, gives an `AttackResult`. `model` is a Keras model or any other callable from images to logits;
    the result holds warnings about what looks like a defence that AutoAttack cannot judge.

    Example:
        >>> result = kr.attacks.AutoAttack(kr.ThreatModel("Linf", 4 / 255), version="short")(model, x, y)
        >>> list(result.accuracy_after)
        ['clean', 'apgd-ce', 'apgd-t']
        >>> result.robust_accuracy <= result.clean_accuracy
        True
    """

    def __init__(self, threat: ThreatModel, version: str = "standard", batch_size: int = 250, seed: int = 0) -> None:
        if not isinstance(threat, ThreatModel):
            raise ValueError(f"threat must be a ThreatModel, e.g. ThreatModel('Linf', 4 / 255); received {threat!r}.")
        self.threat = threat
        self.version = check_choice("version", version, tuple(VERSIONS))
        self.batch_size = check_count("batch_size", batch_size)
        self.seed = check_count("seed", seed, least=0)
        ensemble(threat, version)  # which refuses a threat model that its attacks do not know

    def __call__(self, model: Any, x: Any, y: Any) -> AttackResult:
        x, y = check_batch(model, x, y)
        self.threat.check_images(x.shape[1:])
        return self.suite(model, class_count(model, x)).result(x, y)

    def suite(self, model: Any, num_classes: int) -> AttackSuite:
        """The attacks of this version on a model of `num_classes` classes."""
        used = {getattr(attack, "loss", None) for attack in ensemble(self.threat, self.version).values()}
        return AttackSuite(
            model,
            self.threat,
            ensemble(self.threat, self.version, self.seed, num_classes),
            self.batch_size,
            expects_random=self.version == "rand",
            fallbacks={loss: FALLBACKS[loss] for loss in FALLBACKS if loss in used},
            plan=PLANS.get(self.version),
        )
