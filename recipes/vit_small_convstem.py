"""ViT-S + ConvStem, 300 epochs.

From a clean model and with heavy augmentation on 2-step APGD under Linf 4/255, as Singh, Croce and Hein (2023). Four
3x3 convolutions in place of 16x16 patches: 4 points under Linf, 13 under L2.

    python recipes/clean_pretraining.py --data imagenet --start clean_patchstem.safetensors \\
        --set model.name=vit_small_convstem --out runs/clean_vit_small_convstem
    python recipes/vit_small_convstem.py --data imagenet --start runs/clean_vit_small_convstem
    python recipes/vit_small_convstem.py --data tfds:imagenet2012 --start runs/clean_vit_small_convstem \\
        --set training.accumulate=4 --set data.batch_size=160
    python recipes/vit_small_convstem.py --smoke

The first lines are the way from a clean model; the same command goes on with an interrupted run. With fewer than eight
accelerators micro-batches are accumulated to the same global batch of 640 images.

Expected, in % of 5,000 ImageNet validation images, as published (Singh et al. 2023, arXiv 2303.01870); robust accuracy
under AutoAttack:

    clean 72.56    Linf 4/255 48.08    L2 2 50.4    L1 75 26.68

Cost, from multiply-adds (`--show` counts again): 3.1e+19 operations, 3 d 13 h on one device that sustains 100 TFLOP/s,
10 h 37 min on eight. Input, validation and what a device does not sustain come on top.

The published checkpoint, alone among the paper's own, normalises its images, in the model: so does this one. The clean
model must as well (--set model.normalization=0.485:0.456:0.406,0.229:0.224:0.225).

Nobody has trained it with this package yet: figures are those of the publication.
"""

from keras_robust.recipes import AttackConfig, DataConfig, ModelConfig, Recipe, TrainingConfig
from keras_robust.recipes.cli import main

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation, a layer of the model

RECIPE = Recipe(
    "vit_small_convstem",
    model=ModelConfig("vit_small_convstem", normalization=IMAGENET),
    # Crops, flips, RandAugment, erasing, mixup and cutmix, label smoothing 0.1; 80 images on each of 8 devices.
    data=DataConfig("imagenet", policy="heavy", resolution=224, batch_size=640),
    # AdamW, weight decay 0.05, linear warm-up to 1e-3 and cosine to 5e-6, averaged weights: the defaults.
    training=TrainingConfig(epochs=300, learning_rate=1e-3, ema_decay=0.9999, precision="mixed_bfloat16"),
    attack=AttackConfig("apgd", norms=("Linf",), eps=(4 / 255,), n_iter=2),
)

if __name__ == "__main__":
    main(RECIPE, __doc__)
