"""ConvNeXt-B, 50 epochs.

From a clean model and with heavy augmentation on 2-step APGD under Linf 4/255, as Singh, Croce and Hein (2023). A
further checkpoint that was released with the paper; convnext_base_three_steps.py is the longer training of others.

    python recipes/convnext_base.py --data imagenet --start clean_convnext_base.safetensors
    python recipes/convnext_base.py --data tfds:imagenet2012 --start clean_convnext_base.safetensors \\
        --set training.accumulate=4 --set data.batch_size=160
    python recipes/convnext_base.py --smoke

--start takes a clean model, trained on the same classes, in any file that kr.weights.load reads; the same command goes
on with an interrupted run. With fewer than eight accelerators micro-batches are accumulated to the same global batch of
640 images.

Expected, in % of 5,000 ImageNet validation images, as published (Singh et al. 2023, arXiv 2303.01870); robust accuracy
under AutoAttack:

    clean 75.6    Linf 4/255 54.3

Cost, from multiply-adds (`--show` counts again): 1.6e+19 operations, 1 d 19 h on one device that sustains 100 TFLOP/s,
5 h 27 min on eight. Input, validation and what a device does not sustain come on top.

Nobody has trained it with this package yet: figures are those of the publication.
"""

from keras_robust.recipes import AttackConfig, DataConfig, ModelConfig, Recipe, TrainingConfig
from keras_robust.recipes.cli import main

RECIPE = Recipe(
    "convnext_base",
    model=ModelConfig("convnext_base"),
    # Crops, flips, RandAugment, erasing, mixup and cutmix, label smoothing 0.1; 80 images on each of 8 devices.
    data=DataConfig("imagenet", policy="heavy", resolution=224, batch_size=640),
    # AdamW, weight decay 0.05, linear warm-up to 1e-3 and cosine to 5e-6, averaged weights: the defaults.
    training=TrainingConfig(epochs=50, learning_rate=1e-3, ema_decay=0.9999, precision="mixed_bfloat16"),
    attack=AttackConfig("apgd", norms=("Linf",), eps=(4 / 255,), n_iter=2),
)

if __name__ == "__main__":
    main(RECIPE, __doc__)
