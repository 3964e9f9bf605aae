"""ResNet-50, 100 epochs of 3-step training: a system that the paper compares with.

The usual baseline, with batch norm and without pre-trained features. The epochs and attack steps are those of the
system that Singh et al. (2023) compare with; optimizer, schedule and augmentation are the paper's scheme, not that
system's own, so that rows differ in the architecture alone.

    python recipes/resnet50.py --data imagenet --start clean_resnet50.safetensors
    python recipes/resnet50.py --data tfds:imagenet2012 --start clean_resnet50.safetensors \\
        --set training.accumulate=4 --set data.batch_size=160
    python recipes/resnet50.py --smoke

--start takes a clean model, trained on the same classes, in any file that kr.weights.load reads; the same command goes
on with an interrupted run. With fewer than eight accelerators micro-batches are accumulated to the same global batch of
640 images.

Expected, in % of 5,000 ImageNet validation images, as published (Singh et al. 2023, arXiv 2303.01870); robust accuracy
under AutoAttack:

    clean 65.88    Linf 4/255 33.18    L2 2 18.88    L1 75 3.82

Cost, from multiply-adds (`--show` counts again): 1e+19 operations, 1 d 5 h on one device that sustains 100 TFLOP/s, 3 h
38 min on eight. Input, validation and what a device does not sustain come on top.

Batch norm: robust accuracy is measured in inference mode, on averaged batch statistics; in training mode it looks
better than it is.

Nobody has trained it with this package yet: figures are those of the publication.
"""

from keras_robust.recipes import AttackConfig, DataConfig, ModelConfig, Recipe, TrainingConfig
from keras_robust.recipes.cli import main

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation, a layer of the model

RECIPE = Recipe(
    "resnet50",
    model=ModelConfig("resnet50", normalization=IMAGENET),
    # Crops, flips, RandAugment, erasing, mixup and cutmix, label smoothing 0.1; 80 images on each of 8 devices.
    data=DataConfig("imagenet", policy="heavy", resolution=224, batch_size=640),
    # AdamW, weight decay 0.05, linear warm-up to 1e-3 and cosine to 5e-6, averaged weights: the defaults.
    training=TrainingConfig(epochs=100, learning_rate=1e-3, ema_decay=0.9999, precision="mixed_bfloat16"),
    attack=AttackConfig("apgd", norms=("Linf",), eps=(4 / 255,), n_iter=3),
)

if __name__ == "__main__":
    main(RECIPE, __doc__)
