"""ViT-B + ConvStem, 250 epochs.

From a clean model and with heavy augmentation on 2-step APGD under Linf 4/255, as Singh, Croce and Hein (2023). The
best of the paper under the unseen threat models L2 and L1.

    python recipes/clean_pretraining.py --data imagenet --start clean_patchstem.safetensors \\
        --set model.name=vit_base_convstem --out runs/clean_vit_base_convstem
    python recipes/vit_base_convstem.py --data imagenet --start runs/clean_vit_base_convstem
    python recipes/vit_base_convstem.py --data tfds:imagenet2012 --start runs/clean_vit_base_convstem \\
        --set training.accumulate=4 --set data.batch_size=160
    python recipes/vit_base_convstem.py --smoke

The first lines are the way from a clean model; the same command goes on with an interrupted run. With fewer than eight
accelerators micro-batches are accumulated to the same global batch of 640 images.

Expected, in % of 5,000 ImageNet validation images, as published (Singh et al. 2023, arXiv 2303.01870); robust accuracy
under AutoAttack:

    clean 76.3    Linf 4/255 54.66    L2 2 56.3    L1 75 32.06

Cost, from multiply-adds (`--show` counts again): 9.2e+19 operations, 10 d 14 h on one device that sustains 100 TFLOP/s,
1 d 7 h on eight. Input, validation and what a device does not sustain come on top.

Nobody has trained it with this package yet: figures are those of the publication.
"""

from keras_robust.recipes import AttackConfig, DataConfig, ModelConfig, Recipe, TrainingConfig
from keras_robust.recipes.cli import main

RECIPE = Recipe(
    "vit_base_convstem",
    model=ModelConfig("vit_base_convstem"),
    # Crops, flips, RandAugment, erasing, mixup and cutmix, label smoothing 0.1; 80 images on each of 8 devices.
    data=DataConfig("imagenet", policy="heavy", resolution=224, batch_size=640),
    # AdamW, weight decay 0.05, linear warm-up to 1e-3 and cosine to 5e-6, averaged weights: the defaults.
    training=TrainingConfig(epochs=250, learning_rate=1e-3, ema_decay=0.9999, precision="mixed_bfloat16"),
    attack=AttackConfig("apgd", norms=("Linf",), eps=(4 / 255,), n_iter=2),
)

if __name__ == "__main__":
    main(RECIPE, __doc__)
