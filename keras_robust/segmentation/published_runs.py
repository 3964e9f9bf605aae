"""Published robust segmentation models, one row each: how they were trained, and the figures they have."""

from dataclasses import dataclass, replace

import keras

from keras_robust import models
from keras_robust.checks import check_choice
from keras_robust.progress import duration
from keras_robust.recipes.cost import SUSTAINED
from keras_robust.segmentation.registry import create, with_auxiliary_head
from keras_robust.segmentation.training import SegmentationRecipe


@dataclass(frozen=True)
class PublishedRun:
    """A row of the table of published runs.

    Attributes:
        recipe: of the training.
        layout: of the data, of `LAYOUTS`.
        split: of the training images.
        images: how many these are.
        mean_iou: clean, and under SEA at Linf 4/255 and 8/255, in %.
        chosen: what the publication leaves open and this package chose.
    """

    recipe: SegmentationRecipe
    layout: str
    split: str
    images: int
    mean_iou: tuple[float, float, float]
    chosen: str = ""


# Croce, Singh and Hein (2024), from robust ImageNet backbones (PIR-AT); crops and batches as in their repository.
_VOC = SegmentationRecipe("", 21, (473, 473), 50, 10, 32, learning_rate=1e-3, weight_decay=0.01)
_ADE20K = SegmentationRecipe("", 151, (512, 512), 128, 10, 32, learning_rate=1e-4, weight_decay=0.05)
_TINY, _SMALL = "upernet_convnext_tiny_convstem", "upernet_convnext_small_convstem"
_IMAGES, _WARM_UP = "the usual 10,582 training images", "10 epochs of warm-up"

PUBLISHED = {
    # With the further masks of Hariharan et al. (2011).
    "voc_tiny": PublishedRun(replace(_VOC, model=_TINY), "voc", "trainaug", 10_582, (75.2, 64.9, 34.6), chosen=_IMAGES),
    "voc_small": PublishedRun(
        replace(_VOC, model=_SMALL), "voc", "trainaug", 10_582, (76.6, 66.0, 36.4), chosen=_IMAGES
    ),
    # Class 0, all that is none of the 150, is trained and evaluated as a class.
    "ade20k_tiny": PublishedRun(
        replace(_ADE20K, model=_TINY), "ade20k", "train", 20_210, (31.7, 17.2, 4.9), chosen=_WARM_UP
    ),
    "ade20k_small": PublishedRun(
        replace(_ADE20K, model=_SMALL), "ade20k", "train", 20_210, (32.1, 17.9, 5.4), chosen=_WARM_UP
    ),
}


def published(name: str) -> PublishedRun:
    """The published run called `name`.

    Raises:
        ValueError: there is none of that name; the message lists the nearest names.

    Example:
        >>> published("voc_tiny").recipe.epochs
        50
    """
    return PUBLISHED[check_choice("name", name, PUBLISHED)]


def operations(recipe: SegmentationRecipe, images: int) -> float:
    """Floating-point operations of a training, two for each multiply-add of convolutions and products of matrices.

    Example:
        >>> f"{operations(published('voc_tiny').recipe, 10_582):.1e}"
        '2.9e+18'
    """
    with keras.StatelessScope(initialize_variables=False):  # of the weights the shapes alone
        model = with_auxiliary_head(create(recipe.model, recipe.num_classes))
        per_image = models.multiply_adds(model, recipe.size)
    return 2.0 * per_image * recipe.passes * recipe.epochs * images


def table() -> str:
    """All runs as text: parameters, training, published mean IoU, and the predicted cost."""
    lines = [
        f"{'run':14}{'M params':>9}{'classes':>9}{'px':>6}{'epochs':>8}{'batch':>7}{'clean':>8}{'SEA 4/255':>11}"
        f"{'SEA 8/255':>11}   on 8 x {SUSTAINED / 1e12:.0f} TFLOP/s"
    ]
    for name, run in PUBLISHED.items():
        recipe = run.recipe
        with keras.StatelessScope(initialize_variables=False):
            parameters = models.parameters(with_auxiliary_head(create(recipe.model, recipe.num_classes)))
        clean, four, eight = run.mean_iou
        cost = duration(operations(recipe, run.images) / SUSTAINED / 8)
        lines.append(
            f"{name:14}{parameters / 1e6:9.1f}{recipe.num_classes:9}{recipe.size[0]:6}{recipe.epochs:8}"
            f"{recipe.batch_size:7}{clean:8.1f}{four:11.1f}{eight:11.1f}   {cost}"
        )
    lines.append(
        "\nMean IoU in %, as published, from robust ImageNet backbones. Cost from multiply-adds; input, evaluation and "
        "what a\ndevice does not sustain come on top."
    )
    for name, run in PUBLISHED.items():
        if run.chosen:
            lines.append(f"{name}: {run.chosen}, a choice of this package.")
    return "\n".join(lines)
