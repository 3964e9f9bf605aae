# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A robust model on your own folder of images
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/keras_robust/blob/notebooks/robust_on_your_folder.ipynb)
#
# From `photos/train/<class>/*.png` to a model that keeps its answers under attack, beside one of ordinary training.
# About ten minutes on two CPU cores, less on a GPU. The folder is made here, of crops of photographs that come with
# scikit-image; put yours in its place.

# %%
# Once, in Colab or wherever the package is missing:
# # %pip install -q "keras-robust[quickstart] @ git+https://github.com/OWNER/keras_robust"

# %%
from pathlib import Path

import keras
from PIL import Image

import keras_robust as kr

# %% [markdown]
# ## The folder
#
# One folder per class, in `train` and `val`. Without `val`, a fifth of each class is held out, always the same files.

# %%
for split in ("train", "val"):
    crops = kr.data.photo_crops(split)
    for i in range(len(crops)):
        name = crops.class_names[crops.labels[i]]
        path = Path("photos") / split / name / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(crops.image(i)).save(path)

# %% [markdown]
# See what was understood before you train on it:

# %%
train, val = kr.data.source("photos", "train"), kr.data.source("photos", "val")
print(train.summary())
Image.open(kr.data.contact_sheet(train, "classes.png", per_class=8))

# %% [markdown]
# ## Ordinary training
#
# `TrainPipeline` crops and flips ("basic"; "heavy" adds RandAugment, mixup and more, for long trainings). `workers=0`
# reads in this process, which suits notebooks.

# %%
keras.utils.set_random_seed(0)
pipeline = kr.data.TrainPipeline(train, "basic", resolution=32, batch_size=64, workers=0)
x_val, y_val = val.sample(200).arrays(32, crop_pct=1.0)
x_val = x_val.astype("float32") / 255


def create():
    net = kr.models.create("convnext_atto_convstem", num_classes=len(train.class_names), layer_scale_init=0.1)
    kr.models.set_class_names(net, train.class_names)
    return net


def fit(net, epochs):
    steps = epochs * pipeline.steps_per_epoch
    rate = keras.optimizers.schedules.CosineDecay(1e-5, steps, warmup_target=1e-3, warmup_steps=steps // 10)
    net.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.05),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    net.fit(pipeline.dataset(), epochs=epochs, steps_per_epoch=pipeline.steps_per_epoch, verbose=2)


clean = create()
fit(clean, epochs=6)

# %% [markdown]
# ## Adversarial training, from there
#
# Before every update two steps of APGD look for the change of at most 4/255 that the model likes least, and the update
# is made on that. Start from clean weights: from random ones the training can end in one answer for everything. The
# radius is warmed up, too.

# %%
robust = create()
robust.set_weights(clean.get_weights())
attack = kr.attacks.APGD(kr.ThreatModel("Linf", 4 / 255), n_iter=2)
trainer = kr.AdversarialModel(robust, attack, eps_warmup_steps=pipeline.steps_per_epoch)
fit(trainer, epochs=6)

# %% [markdown]
# ## What it bought
#
# Both under the same attacks, stronger than the training's, and under a threat model that neither has seen.

# %%
threats = [kr.ThreatModel("Linf", 4 / 255), kr.ThreatModel("L2", 0.5)]
reports = {
    name: kr.evaluation.evaluate(model, val, threats, [32], "short", n_examples=200, crop_pct=1.0, verbose=False)
    for name, model in {"clean": clean, "robust": robust}.items()
}
print(kr.evaluation.table(reports))

# %% [markdown]
# ## Keep it
#
# A folder with the weights and all that is known about them, for `kr.models.from_preset` or the Hugging Face Hub:

# %%
kr.models.save_preset(
    robust,
    "robust_photos",
    preprocessing=kr.models.Preprocessing(resolution=32, crop_pct=1.0, interpolation="bicubic"),
    threat=kr.ThreatModel("Linf", 4 / 255),
    report=reports["robust"],
    overwrite=True,
)
print(Path("robust_photos/README.md").read_text())
