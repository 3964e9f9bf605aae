"""Published systems on ImageNet, one row each: what `recipes/imagenet.py` and `keras-robust train` train by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_robust.recipes.config import Recipe

# Name -> the preset whose architecture, epochs, attack steps and normalisation it has, and whose figures are published.
SYSTEMS = {
    "resnet50": "resnet50_100ep",
    "xcit_small": "xcit_small_110ep",
    "vit_small": "vit_small_300ep",
    "vit_small_convstem": "vit_small_convstem_300ep",
    "vit_medium_convstem": "vit_medium_convstem_50ep",
    "vit_base": "vit_base_300ep",
    "vit_base_convstem": "vit_base_convstem_250ep",
    "robarch_small": "robarch_small_110ep",
    "robarch_large": "robarch_large_100ep",
    "convnext_isotropic_small": "convnext_isotropic_small_300ep",
    "convnext_isotropic_small_convstem": "convnext_isotropic_small_convstem_300ep",
    "convnext_tiny": "convnext_tiny_300ep",
    "convnext_tiny_convstem": "convnext_tiny_convstem_300ep",
    "convnext_tiny_one_step": "convnext_tiny_110ep",
    "convnext_small_convstem": "convnext_small_convstem_50ep",
    "convnext_base": "convnext_base_50ep",
    "convnext_base_three_steps": "convnext_base_300ep",
    "convnext_base_convstem": "convnext_base_convstem_250ep",
    "convnext_large_convstem": "convnext_large_convstem_100ep",
    "swin_base": "swin_base_300ep",
    "swin_base_short": "swin_base_90ep",
}
# Of one-step attacks, which overfit from random starts at the full radius.
ONE_STEP_EPS_WARMUP = 10


def recipe(name: str) -> Recipe:
    """The recipe of a published system: Linf 4/255, heavy augmentation at 224 px, averaged weights.

    Systems that others published are trained here by the recipe of Singh et al. (2023), with their own number of epochs
    and attack steps: their published figures come from other recipes.

    Args:
        name: a key of `SYSTEMS`.

    Raises:
        ValueError: another name.

    Example:
        >>> kr.recipes.imagenet.recipe("convnext_base_convstem").training.epochs
        250
    """
    from keras_robust import models
    from keras_robust.checks import check_choice
    from keras_robust.recipes.config import AttackConfig, DataConfig, ModelConfig, Recipe, TrainingConfig

    preset = models.preset(SYSTEMS[check_choice("name", name, SYSTEMS)])
    norm, eps = preset.threat
    # Of the systems, not of all presets, the training is known.
    assert preset.epochs is not None
    assert preset.attack_steps is not None
    return Recipe(
        name,
        model=ModelConfig(preset.architecture, normalization=preset.normalization),
        # 80 images per device, as published, on eight devices: their number is a choice of this package.
        data=DataConfig("imagenet", policy="heavy", resolution=224, batch_size=640),
        training=TrainingConfig(epochs=preset.epochs, learning_rate=1e-3, ema_decay=0.9999, precision="mixed_bfloat16"),
        attack=AttackConfig(
            "apgd",
            norms=(norm,),
            eps=(eps,),
            n_iter=preset.attack_steps,
            eps_warmup_epochs=ONE_STEP_EPS_WARMUP if preset.attack_steps == 1 else 0,
        ),
    )


def table() -> str:
    """All systems as text: parameters, training, published accuracies, and the predicted cost."""
    from keras_robust import models
    from keras_robust.progress import duration
    from keras_robust.recipes import cost

    lines = [
        f"{'system':34}{'M params':>9}{'epochs':>8}{'steps':>7}{'clean':>8}{'Linf 4/255':>12}{'L2 2':>7}{'L1 75':>7}"
        f"   on 8 x {cost.SUSTAINED / 1e12:.0f} TFLOP/s"
    ]
    for name, preset_name in SYSTEMS.items():
        preset = models.preset(preset_name)
        operations, parameters = cost.count(recipe(name))
        figures = [preset.clean, preset.linf, preset.l2, preset.l1]
        clean, linf, l2, l1 = ("-" if figure is None else f"{figure:.1f}" for figure in figures)
        lines.append(
            f"{name:34}{parameters / 1e6:9.1f}{preset.epochs:8}{preset.attack_steps:7}"
            f"{clean:>8}{linf:>12}{l2:>7}{l1:>7}"
            f"   {duration(operations / cost.SUSTAINED / 8)}"
        )
    lines.append(
        "\nAccuracies in %, under AutoAttack, as published; systems that others published had other recipes."
        "\nCost from multiply-adds; input, validation and what a device does not sustain come on top."
    )
    return "\n".join(lines)
