"""The ablation of the scheme for ViT-S: one rung of the ladder at a time.

What each part of the paper's training is worth (Singh et al. 2023, ablation of the scheme). Every rung but the first
starts from a clean model; the fifth replaces the stem.

    python recipes/ablation_vit_small.py random --data imagenet
    python recipes/ablation_vit_small.py pretrained --data imagenet --start clean_vit_small.safetensors
    python recipes/ablation_vit_small.py heavy --data imagenet --start clean_vit_small.safetensors
    python recipes/ablation_vit_small.py long --data imagenet --start clean_vit_small.safetensors
    python recipes/ablation_vit_small.py convstem --data imagenet --start runs/clean_vit_small_convstem
    python recipes/ablation_vit_small.py heavy --smoke

The last rung starts from a run of recipes/clean_pretraining.py with model.name=vit_small_convstem.

Expected, in % of 5,000 ImageNet validation images, as published; robust accuracy under AutoAttack:

    rung                                                clean   Linf 4/255   L2 2   L1 75
    random       random weights, basic, 50 epochs        61.5         31.8   35.5    15.1
    pretrained   + strong clean pre-training             66.8         39.1   34.5    12.6
    heavy        + heavy augmentation                    65.2         39.2   37.3    16.2
    long         50 -> 300 epochs                        69.2         44.0   37.5    15.1
    convstem     + ConvStem                              72.5         48.1   50.4    26.7

Cost, from multiply-adds (`--show` counts again): rungs of 50 epochs 4.7e+18
operations, 13 h 5 min on one device that sustains 100 TFLOP/s; of 300 epochs 2.8e+19 and 3 d 6 h, with the ConvStem
3.1e+19 and 3 d 13 h; an eighth of the time on eight devices.

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
PATCHES, CONVOLUTIONS = ModelPart("vit_small"), ModelPart("vit_small_convstem")

RUNGS = {
    "random": Recipe("vit_small_random", PATCHES, data=BASIC, training=SHORT, attack=ATTACK),
    "pretrained": Recipe("vit_small_pretrained", PATCHES, data=BASIC, training=SHORT, attack=ATTACK),
    "heavy": Recipe("vit_small_heavy", PATCHES, data=HEAVY, training=SHORT, attack=ATTACK),
    "long": Recipe("vit_small_long", PATCHES, data=HEAVY, training=LONG, attack=ATTACK),
    "convstem": Recipe("vit_small_ladder_convstem", CONVOLUTIONS, data=HEAVY, training=LONG, attack=ATTACK),
}

if __name__ == "__main__":
    main(RUNGS, __doc__)
