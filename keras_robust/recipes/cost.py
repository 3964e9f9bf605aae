"""What a recipe costs, from multiply-adds."""

import keras

from keras_robust import models
from keras_robust.recipes.progress import duration
from keras_robust.training.objectives import OBJECTIVES

IMAGENET = 1_281_167  # training images
SUSTAINED = 100e12  # operations per second; about a third of the 16-bit peak of one NVIDIA A100 (312e12)


def passes(recipe):
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


def operations(recipe, n_images=IMAGENET, num_classes=1000):
    """Floating-point operations (two per multiply-add) of training a recipe, convolutions and products of matrices.

    Example:
        >>> operations(recipe) / 1e18   # ConvNeXt-T + ConvStem, 300 epochs of 2-step APGD
        28.0
    """
    per_image = {}
    with_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        model = models.create(recipe.model.name, recipe.model.num_classes or num_classes)
    finally:
        keras.config.set_dtype_policy(with_policy)
    total = 0
    for epoch in range(recipe.training.epochs):
        side = recipe.data.resolution_at(epoch)
        if side not in per_image:
            per_image[side] = 2 * passes(recipe) * models.multiply_adds(model, side)
        total += per_image[side]
    if recipe.training.steps_per_epoch is not None:
        n_images = recipe.training.steps_per_epoch * recipe.data.batch_size
    return total * n_images


def describe(recipe, n_images=IMAGENET):
    """The cost in words."""
    count = operations(recipe, n_images)
    if recipe.training.steps_per_epoch is not None:
        n_images = recipe.training.steps_per_epoch * recipe.data.batch_size
    seconds = count / SUSTAINED
    return (
        f"{passes(recipe)} forward-equivalents per step and image, {n_images:,} images, {recipe.training.epochs} "
        f"epochs: {count:.2g} operations, {duration(seconds)} on one device that sustains {SUSTAINED / 1e12:.0f} "
        f"TFLOP/s, {duration(seconds / 8)} on eight"
    )
