# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Attack the Keras model that you already have, and see it fail
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/keras_robust/blob/notebooks/attack_your_model.ipynb)
#
# A small classifier, trained as usual, without this package. Then somebody changes its images by an amount that you
# hardly see. The photographs come with scikit-image, nothing is downloaded; about two minutes on two CPU cores.

# %%
# Once, in Colab or wherever the package is missing:
# # %pip install -q "keras-robust[quickstart] @ git+https://github.com/OWNER/keras_robust"

# %%
import keras
import numpy as np
from PIL import Image

import keras_robust as kr

# %% [markdown]
# ## Your model
#
# It stands here for yours: any Keras classifier will do. This one learns from which of ten photographs a crop was cut.
# It takes pixels from 0 to 255 and returns probabilities, as most do.

# %%
keras.utils.set_random_seed(0)
photos = kr.data.photo_crops("train")
x, y = photos.arrays(32, crop_pct=1.0)  # 8-bit images, shuffled
net = keras.Sequential(
    [
        keras.Input((32, 32, 3)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
        keras.layers.Conv2D(64, 3, strides=2, padding="same", activation="relu"),
        keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
net.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
net.fit(x, y, epochs=15, verbose=2)

# %% [markdown]
# On crops from parts of the photographs that it has not seen:

# %%
x_val, y_val = kr.data.photo_crops("val").sample(200).arrays(32, crop_pct=1.0)
print(f"accuracy: {net.evaluate(x_val, y_val, verbose=0)[1]:.3f}")

# %% [markdown]
# ## Make it safe to attack
#
# An attack follows gradients, and through a softmax those of confident answers vanish: the attack would fail, and the
# model look robust. `kr.adapt` copies the net into a model from pixels in [0, 1] to logits and checks that it answers
# as the original. Attacking `net` itself is refused, with this line as the advice.

# %%
model = kr.adapt(net, class_names=photos.class_names)
x_val = x_val.astype("float32") / 255

# %% [markdown]
# ## Attack it
#
# AutoAttack is what the field compares by; its short version takes the two attacks that find nearly everything. A
# radius of 4/255 under Linf: no value of a pixel changes by more than four grey levels of 255.

# %%
result = kr.attacks.AutoAttack(kr.ThreatModel("Linf", 4 / 255), version="short")(model, x_val, y_val)
print(result)

# %% [markdown]
# Images above, what the attack made of them in the middle, and the difference below, amplified to be seen at all:

# %%
shown = np.argsort(-result.perturbation_norm, kind="stable")[:8]
Image.fromarray(kr.data.attack_sheet(x_val[shown], result.x_adv[shown], enlarge=3))

# %% [markdown]
# ## How little is enough?
#
# A minimal-norm attack looks for the nearest misclassified image instead. From the distances follows the accuracy at
# every radius.

# %%
nearest = kr.attacks.FMN("Linf", n_iter=100)(model, x_val, y_val)
for grey_levels in (0, 1, 2, 4, 8):
    print(f"Linf {grey_levels}/255: {nearest.robust_at(grey_levels / 255)}")

# %% [markdown]
# ## Next
#
# `robust_on_your_folder` trains one that holds. On the command line, for a model in a file:
# `keras-robust evaluate --model mine.keras --pixels 0..255 --data FOLDER --resolutions 64 --out runs/mine`.
