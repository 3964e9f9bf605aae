"""The ablation of the scheme for ConvNeXt-T and ViT-S: one rung of the ladder at a time.

What each part of the paper's training is worth (Singh et al. 2023, ablation of the scheme). Every rung but the first
starts from a clean model; the fifth replaces the stem.

    python recipes/ablation.py convnext_tiny_random --data imagenet
    python recipes/ablation.py convnext_tiny_pretrained --data imagenet --start clean_convnext_tiny.safetensors
    python recipes/ablation.py convnext_tiny_heavy --data imagenet --start clean_convnext_tiny.safetensors
    python recipes/ablation.py convnext_tiny_long --data imagenet --start clean_convnext_tiny.safetensors
    python recipes/ablation.py convnext_tiny_ladder_convstem --data imagenet --start runs/clean_convnext_tiny_convstem
    python recipes/ablation.py vit_small_heavy --smoke

The last rung starts from a run of recipes/clean_pretraining.py with the model's ConvStem, and normalises pixels as the
published checkpoint: for ViT-S as in the command there, for ConvNeXt-T not at all.

Expected, in % of 5,000 ImageNet validation images, as published; robust accuracy under AutoAttack:

                                                       ConvNeXt-T                        ViT-S
    rung                                               clean  Linf 4/255  L2 2  L1 75    clean  Linf 4/255  L2 2  L1 75
    random           random weights, basic, 50 epochs   64.0        37.1  28.9    8.8     61.5        31.8  35.5   15.1
    pretrained       + strong clean pre-training        69.4        41.6  42.4   18.9     66.8        39.1  34.5   12.6
    heavy            + heavy augmentation               71.0        46.5  38.1   14.9     65.2        39.2  37.3   16.2
    long             50 -> 300 epochs                   72.4        48.6  38.0   14.9     69.2        44.0  37.5   15.1
    ladder_convstem  + ConvStem                         72.7        49.5  48.4   24.5     72.5        48.1  50.4   26.7

Cost, from multiply-adds (`--show` counts again): rungs of 50 epochs 4.6e+18 (ViT-S 4.7e+18) operations, 13 h on one
device that sustains 100 TFLOP/s; of 300 epochs 2.7e+19 (2.8e+19) and 3 d 4 h (3 d 6 h), with the ConvStem 2.8e+19
(3.1e+19) and 3 d 6 h (3 d 13 h); an eighth of the time on eight devices.

Basic augmentation comes with plain cross-entropy on hard labels, heavy augmentation with mixed and smoothed ones.
Random weights with heavy augmentation fail in the paper's experiments and are no rung.
"""

import sys
from typing import TYPE_CHECKING

from keras_robust.cli.train import run_recipes

if TYPE_CHECKING:
    from keras_robust.recipes import Recipe

# Name of the rung -> ending of the model's name, augmentation, epochs.
LADDER = {
    "random": ("", "basic", 50),
    "pretrained": ("", "basic", 50),
    "heavy": ("", "heavy", 50),
    "long": ("", "heavy", 300),
    "ladder_convstem": ("_convstem", "heavy", 300),
}
RUNGS = {f"{model}_{rung}": (model, rung) for model in ("convnext_tiny", "vit_small") for rung in LADDER}


def recipe(name: str) -> "Recipe":
    from keras_robust.checks import check_choice
    from keras_robust.recipes import AttackConfig, DataConfig, ModelConfig, Recipe, TrainingConfig, imagenet

    model, rung = RUNGS[check_choice("name", name, RUNGS)]
    stem, policy, epochs = LADDER[rung]
    return Recipe(
        name,
        ModelConfig(model + stem, normalization=imagenet.recipe(model + stem).model.normalization),
        data=DataConfig("imagenet", policy=policy, resolution=224, batch_size=640),
        training=TrainingConfig(epochs=epochs),
        attack=AttackConfig("apgd", norms=("Linf",), eps=(4 / 255,), n_iter=2),
    )


if __name__ == "__main__":
    sys.exit(run_recipes(RUNGS, recipe, "train", __doc__ or ""))
