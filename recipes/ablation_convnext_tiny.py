"""The ablation of the scheme for ConvNeXt-T: one rung of the ladder at a time.

What each part of the paper's training is worth (Singh et al. 2023, ablation of the scheme). Every rung but the first
starts from a clean model; the fifth replaces the stem.

    python recipes/ablation_convnext_tiny.py random --data imagenet
    python recipes/ablation_convnext_tiny.py pretrained --data imagenet --start clean_convnext_tiny.safetensors
    python recipes/ablation_convnext_tiny.py heavy --data imagenet --start clean_convnext_tiny.safetensors
    python recipes/ablation_convnext_tiny.py long --data imagenet --start clean_convnext_tiny.safetensors
    python recipes/ablation_convnext_tiny.py convstem --data imagenet --start runs/clean_convnext_tiny_convstem
    python recipes/ablation_convnext_tiny.py heavy --smoke

The last rung starts from a run of recipes/clean_pretraining.py with model.name=convnext_tiny_convstem.

Expected, in % of 5,000 ImageNet validation images, as published; robust accuracy under AutoAttack:

    rung                                                clean   Linf 4/255   L2 2   L1 75
    random       random weights, basic, 50 epochs        64.0         37.1   28.9     8.8
    pretrained   + strong clean pre-training             69.4         41.6   42.4    18.9
    heavy        + heavy augmentation                    71.0         46.5   38.1    14.9
    long         50 -> 300 epochs                        72.4         48.6   38.0    14.9
    convstem     + ConvStem                              72.7         49.5   48.4    24.5

Cost, from multiply-adds (`--show` counts again): rungs of 50 epochs 4.6e+18
operations, 12 h 41 min on one device that sustains 100 TFLOP/s; of 300 epochs 2.7e+19 and 3 d 4 h, with the ConvStem
2.8e+19 and 3 d 6 h; an eighth of the time on eight devices.

Basic augmentation comes with plain cross-entropy on hard labels, heavy augmentation with mixed and smoothed ones.
Random weights with heavy augmentation fail in the paper's experiments and are no rung.
"""

from dataclasses import replace

from keras_robust.training import AttackPart, DataPart, ModelPart, Recipe, TrainingPart
from keras_robust.training.command_line import main

HEAVY = DataPart("imagenet", policy="heavy", resolution=224, batch_size=640)
BASIC = replace(HEAVY, policy="basic")
SHORT, LONG = TrainingPart(epochs=50), TrainingPart(epochs=300)
ATTACK = AttackPart("apgd", norms=("Linf",), eps=(4 / 255,), n_iter=2)
PATCHES, CONVOLUTIONS = ModelPart("convnext_tiny"), ModelPart("convnext_tiny_convstem")

RUNGS = {
    "random": Recipe("convnext_tiny_random", PATCHES, data=BASIC, training=SHORT, attack=ATTACK),
    "pretrained": Recipe("convnext_tiny_pretrained", PATCHES, data=BASIC, training=SHORT, attack=ATTACK),
    "heavy": Recipe("convnext_tiny_heavy", PATCHES, data=HEAVY, training=SHORT, attack=ATTACK),
    "long": Recipe("convnext_tiny_long", PATCHES, data=HEAVY, training=LONG, attack=ATTACK),
    "convstem": Recipe("convnext_tiny_ladder_convstem", CONVOLUTIONS, data=HEAVY, training=LONG, attack=ATTACK),
}

if __name__ == "__main__":
    main(RUNGS, __doc__)
