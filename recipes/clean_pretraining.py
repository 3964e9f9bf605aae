"""Clean training with heavy augmentation: the stage from which the adversarial trainings start.

Adversarial training from random weights with heavy augmentation fails in the paper's experiments; from a good clean
model it gains 5 points (Singh et al. 2023, ablation of the scheme). For a ConvStem the paper takes a clean model with a
PatchStem, replaces the stem alone by a random one, and trains clean again: `start.new` does so.

    python recipes/clean_pretraining.py --data imagenet --start clean_convnext_tiny.safetensors
    python recipes/clean_pretraining.py --data imagenet --set model.name=vit_small_convstem --start deit_small.pth \\
        --set model.normalization=0.485:0.456:0.406,0.229:0.224:0.225 --out runs/clean_vit_small_convstem
    python recipes/clean_pretraining.py --data imagenet --start clean_convnext_tiny.safetensors --out runs/stem \\
        --set start.train_only=stem --set training.epochs=5
    python recipes/clean_pretraining.py --data imagenet --set model.name=vit_small --set start.new= --out runs/vit_small
    python recipes/clean_pretraining.py --smoke

Pixels are normalised as in the robust recipe of the same model (`keras-robust train NAME --show`), which starts from
this run: ViT-S + ConvStem was published with ImageNet's mean and deviation, the other ConvStems on raw pixels.

The third trains the new stem alone, all else frozen: an option before the second; then go on with --start runs/stem
--set start.new=. Without --start everything is random. `best.keras` of the run, the better of raw and averaged weights,
is what --start runs/... of the other recipes takes.

Expected: the publication gives no accuracies for this stage. A ConvNeXt-T with a PatchStem, trained clean by its
authors for 300 epochs, has 82.1 % (Liu et al. 2022, "A ConvNet for the 2020s", table 1).

Cost, from multiply-adds (`--show` counts again), of 100 epochs of ConvNeXt-T + ConvStem: 3.5e+18 operations, 9 h 47 min
on one device that sustains 100 TFLOP/s, 1 h 13 min on eight.

The number of epochs is a choice of this package: the publication does not tell it. Robust accuracy, near 0, is measured
and logged all the same; the best checkpoint goes by clean accuracy.
"""

import sys
from typing import TYPE_CHECKING

from keras_robust.cli.train import run_recipe

if TYPE_CHECKING:
    from keras_robust.recipes import Recipe


def recipe() -> "Recipe":
    from keras_robust.recipes import AttackConfig, DataConfig, ModelConfig, Recipe, StartConfig, TrainingConfig

    return Recipe(
        "clean_convnext_tiny_convstem",
        model=ModelConfig("convnext_tiny_convstem"),
        start=StartConfig(new=("stem",)),
        data=DataConfig("imagenet", policy="heavy", resolution=224, batch_size=640),
        training=TrainingConfig(epochs=100, learning_rate=1e-3, ema_decay=0.9999, precision="mixed_bfloat16"),
        attack=AttackConfig("none"),
    )


if __name__ == "__main__":
    sys.exit(run_recipe(recipe, __doc__ or ""))
