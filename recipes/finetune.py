"""From a model that is robust at Linf 4/255 to one at 8/255, by fine-tuning.

A model trained at 4/255 loses most of its robustness at twice the radius; training at 8/255 from the start is hard. The
way there is a short training at 8/255 from the robust model, the radius warmed up.

    python recipes/finetune.py --data imagenet --start runs/convnext_tiny_convstem
    python recipes/finetune.py --data imagenet --start convnext_tiny_cvst_robust.pt
    python recipes/finetune.py --data imagenet --start runs/vit_base_convstem \\
        --set model.name=vit_base_convstem --out runs/vit_base_convstem_8_255
    python recipes/finetune.py --data photos --model applications:MobileNetV3Small --out runs/mobilenet \\
        --set attack.eps=4/255 --set data.batch_size=64
    python recipes/finetune.py --data photos --model mine.keras --pixels 0..255
    python recipes/finetune.py --smoke

--start takes the folder of a finished run, or a file that kr.weights.load reads: a published robust checkpoint, say.
--model takes another library's model, or your own (see kr.adapt); it keeps its head where it has as many classes as the
data, and gets a new one else. What the model answers before training is printed first: wrong pixels show there.

Expected: less clean accuracy and, at 8/255, more robust accuracy than the model that it starts from. Evaluate both, at
4 and at 8/255, with the same attack: `keras-robust evaluate`. No figures stand here: nobody has trained it with this
package yet, and the table of the publication that this package goes by holds none at 8/255.

Cost, from multiply-adds (`--show` counts again): 2.4e+18 operations, 6 h 31 min on one device that sustains 100
TFLOP/s, 49 min on eight.

Epochs, learning rate and warm-up of the radius are choices of this package: a tenth of the peak rate, as the weights
are near their goal, and 5 of 25 epochs over which the radius rises to 8/255.
"""

import sys
from typing import TYPE_CHECKING

from keras_robust.cli.train import run_recipe

if TYPE_CHECKING:
    from keras_robust.recipes import Recipe


def recipe() -> "Recipe":
    from keras_robust.recipes import AttackConfig, DataConfig, ModelConfig, Recipe, TrainingConfig

    return Recipe(
        "convnext_tiny_convstem_8_255",
        model=ModelConfig("convnext_tiny_convstem"),
        data=DataConfig("imagenet", policy="heavy", resolution=224, batch_size=640),
        training=TrainingConfig(
            epochs=25, learning_rate=1e-4, warmup_epochs=1, ema_decay=0.9999, precision="mixed_bfloat16"
        ),
        attack=AttackConfig("apgd", norms=("Linf",), eps=(8 / 255,), n_iter=2, eps_warmup_epochs=5),
    )


if __name__ == "__main__":
    sys.exit(run_recipe(recipe, __doc__ or ""))
