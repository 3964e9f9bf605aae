"""ViT-S, 300 epochs.

From a clean model and with heavy augmentation on 2-step APGD under Linf 4/255, as Singh, Croce and Hein (2023). The
PatchStem's baseline: vit_small_convstem.py is where the ConvStem gains most.

    python recipes/vit_small.py --data imagenet --start clean_vit_small.safetensors
    python recipes/vit_small.py --data tfds:imagenet2012 --start clean_vit_small.safetensors \\
        --set training.accumulate=4 --set data.batch_size=160
    python recipes/vit_small.py --smoke

--start takes a clean model, trained on the same classes, in any file that kr.weights.load reads; the same command goes
on with an interrupted run. With fewer than eight accelerators micro-batches are accumulated to the same global batch of
640 images.

Expected, in % of 5,000 ImageNet validation images, as published (Singh et al. 2023, arXiv 2303.01870); robust accuracy
under AutoAttack:

    clean 69.22    Linf 4/255 44.04    L2 2 37.52    L1 75 15.12

Cost, from multiply-adds (`--show` counts again): 2.8e+19 operations, 3 d 6 h on one device that sustains 100 TFLOP/s, 9
h 49 min on eight. Input, validation and what a device does not sustain come on top.

Nobody has trained it with this package yet: figures are those of the publication.
"""

from keras_robust.recipes import AttackConfig, DataConfig, ModelConfig, Recipe, TrainingConfig
from keras_robust.recipes.cli import main

RECIPE = Recipe(
    "vit_small",
    model=ModelConfig("vit_small"),
    # Crops, flips, RandAugment, erasing, mixup and cutmix, label smoothing 0.1; 80 images on each of 8 devices.
    data=DataConfig("imagenet", policy="heavy", resolution=224, batch_size=640),
    # AdamW, weight decay 0.05, linear warm-up to 1e-3 and cosine to 5e-6, averaged weights: the defaults.
    training=TrainingConfig(epochs=300, learning_rate=1e-3, ema_decay=0.9999, precision="mixed_bfloat16"),
    attack=AttackConfig("apgd", norms=("Linf",), eps=(4 / 255,), n_iter=2),
)

if __name__ == "__main__":
    main(RECIPE, __doc__)
