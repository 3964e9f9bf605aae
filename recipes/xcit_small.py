"""XCiT-S12, 110 epochs of 1-step training: a system that the paper compares with.

A transformer with attention over channels and a stem of convolutions. The epochs and attack steps are those of the
system that Singh et al. (2023) compare with; optimizer, schedule and augmentation are the paper's scheme, not that
system's own, so that rows differ in the architecture alone.

    python recipes/xcit_small.py --data imagenet --start clean_xcit_small.safetensors
    python recipes/xcit_small.py --data tfds:imagenet2012 --start clean_xcit_small.safetensors \\
        --set training.accumulate=4 --set data.batch_size=160
    python recipes/xcit_small.py --smoke

--start takes a clean model, trained on the same classes, in any file that kr.weights.load reads; the same command goes
on with an interrupted run. With fewer than eight accelerators micro-batches are accumulated to the same global batch of
640 images.

Expected, in % of 5,000 ImageNet validation images, as published (Singh et al. 2023, arXiv 2303.01870); robust accuracy
under AutoAttack:

    clean 72.34    Linf 4/255 41.78    L2 2 46.2    L1 75 22.72

Cost, from multiply-adds (`--show` counts again): 8.1e+18 operations, 22 h 30 min on one device that sustains 100
TFLOP/s, 2 h 48 min on eight. Input, validation and what a device does not sustain come on top.

One-step training can collapse (catastrophic overfitting): the radius is warmed up over 10 epochs, and the run stops
when robust accuracy under the multi-step attack does.

Nobody has trained it with this package yet: figures are those of the publication.
"""

from keras_robust.recipes import AttackConfig, DataConfig, ModelConfig, Recipe, TrainingConfig
from keras_robust.recipes.cli import main

RECIPE = Recipe(
    "xcit_small",
    model=ModelConfig("xcit_small"),
    # Crops, flips, RandAugment, erasing, mixup and cutmix, label smoothing 0.1; 80 images on each of 8 devices.
    data=DataConfig("imagenet", policy="heavy", resolution=224, batch_size=640),
    # AdamW, weight decay 0.05, linear warm-up to 1e-3 and cosine to 5e-6, averaged weights: the defaults.
    training=TrainingConfig(epochs=110, learning_rate=1e-3, ema_decay=0.9999, precision="mixed_bfloat16"),
    attack=AttackConfig("apgd", norms=("Linf",), eps=(4 / 255,), n_iter=1, eps_warmup_epochs=10),
)

if __name__ == "__main__":
    main(RECIPE, __doc__)
