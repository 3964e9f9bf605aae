"""Cost of a recipe, from multiply-adds."""

import keras

from keras_robust import models
from keras_robust.progress import duration
from keras_robust.recipes.config import Recipe
from keras_robust.training.objectives import OBJECTIVES

IMAGENET = 1_281_167  # training images
SUSTAINED = 100e12  # operations per second; about a third of the 16-bit peak of one NVIDIA A100 (312e12)


def passes(recipe: Recipe) -> int:
    """Forward-equivalents of one training step per image: a backward pass through images or weights counts as one.

    Clean training takes 3 (forward; gradients of activations and of weights). Each attack gradient takes 2. APGD looks
    at its last point besides (1), and paired objectives send the clean images through as well (3).
    """
    attack = recipe.attack
    gradients = attack.n_iter if attack.kind in ("apgd", "pgd") else 0 if attack.kind == "none" else 1
    last = 1 if attack.kind == "apgd" else 0
    objective = recipe.training.objective
    targets = 1 if objective == "trades" else 0  # the clean prediction that TRADES attacks
    return 3 + 2 * gradients + last + targets + (3 if OBJECTIVES[objective].paired else 0)


def count(recipe: Recipe, n_images: int = IMAGENET, num_classes: int = 1000) -> tuple[float, int]:
    """Floating-point operations of training a recipe, and the parameters of its model.

    Operations are two per multiply-add, of convolutions and products of matrices. Nothing is computed: the weights of
    this package's models have shapes and no values.

    Example:
        >>> operations, parameters = count(kr.recipes.imagenet.recipe("convnext_tiny_convstem"))
        >>> round(operations / 1e18), parameters
        (28, 28627432)
    """
    name, classes = recipe.model.name, recipe.model.num_classes or num_classes
    foreign = models.adapted(name, classes, recipe.model.pixels, pretrained=False) if models.is_foreign(name) else None
    with keras.StatelessScope(initialize_variables=False):
        model = models.create(name, classes) if foreign is None else foreign
        per_image: dict[int, int] = {}
        total = 0
        for epoch in range(recipe.training.epochs):
            resolution = recipe.data.resolution_at(epoch)
            if resolution not in per_image:
                per_image[resolution] = 2 * passes(recipe) * models.multiply_adds(model, resolution)
            total += per_image[resolution]
    if recipe.training.steps_per_epoch is not None:
        n_images = recipe.training.steps_per_epoch * recipe.data.batch_size
    return total * n_images, models.parameters(model)


def describe(recipe: Recipe, n_images: int = IMAGENET, num_classes: int = 1000) -> str:
    """The cost in words."""
    operations, _ = count(recipe, n_images, num_classes)
    if recipe.training.steps_per_epoch is not None:
        n_images = recipe.training.steps_per_epoch * recipe.data.batch_size
    seconds = operations / SUSTAINED
    return (
        f"{passes(recipe)} forward-equivalents per step and image, {n_images:,} images, {recipe.training.epochs} "
        f"epochs: {operations:.2g} operations, {duration(seconds)} on one device that sustains {SUSTAINED / 1e12:.0f} "
        f"TFLOP/s, {duration(seconds / 8)} on eight"
    )
