"""Tasks of exported models: whether their logits are of images or of pixels, and what that changes in an artefact."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """What exported models of a kind answer, in words for the model card, and how many images verify them.

    Attributes:
        logits: shape of the logits.
        outputs: what every format answers beside them.
        names: what a SavedModel adds.
        n_examples: images of a verification: of 100, one is a point of accuracy; of pixels few images have many.
    """

    logits: str
    outputs: str
    names: str
    n_examples: int


CLASSIFICATION, SEGMENTATION = "classification", "segmentation"
TASKS = {
    CLASSIFICATION: Task(
        logits="(batch, classes)",
        outputs="`probabilities` float32 (batch, classes), `classes` int32 (batch,), `top5_classes` int32 and "
        "`top5_probabilities` float32 (batch, 5)",
        names=", `names` and `top5_names` strings",
        n_examples=100,
    ),
    SEGMENTATION: Task(
        logits="(batch, height, width, classes)",
        outputs="`classes` int32 and `confidences`, their probabilities, float32, both (batch, height, width)",
        names="",
        n_examples=8,
    ),
}


def task_of(shape: tuple) -> str:
    """The name of the task of a model, from the shape of its logits.

    Example:
        >>> task_of((None, None, None, 21))
        'segmentation'
    """
    return SEGMENTATION if len(shape) == 4 else CLASSIFICATION
