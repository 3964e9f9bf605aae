# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Evaluate across threats and resolutions, and read the report
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/keras_robust/blob/notebooks/read_an_evaluation.ipynb)
#
# How robust is a model, to what, at which resolution, and which figures are not to be believed. Two small models are
# trained first, on photographs that come with scikit-image; about five minutes on two CPU cores.

# %%
# Once, in Colab or wherever the package is missing:
# # %pip install -q "keras-robust[quickstart] @ git+https://github.com/OWNER/keras_robust"

# %%
import keras

import keras_robust as kr

# %% [markdown]
# ## Two models
#
# The same net twice, with clean and with adversarial training. It has no layer that fixes the size of its images.

# %%
keras.utils.set_random_seed(0)
x, y = kr.data.photo_crops("train").arrays(32, crop_pct=1.0)
x = x.astype("float32") / 255


def create():
    inputs = keras.Input((None, None, 3))
    h = keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="gelu")(inputs)
    h = keras.layers.Conv2D(64, 3, strides=2, padding="same", activation="gelu")(h)
    h = keras.layers.Conv2D(64, 3, padding="same", activation="gelu")(h)
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(h)))


def fit(net, epochs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.Adam(2e-3), loss, metrics=["accuracy"])
    net.fit(x, y, batch_size=64, epochs=epochs, verbose=2)


clean = create()
fit(clean, epochs=10)
robust = create()
robust.set_weights(clean.get_weights())
fit(kr.AdversarialModel(robust, kr.attacks.APGD(kr.ThreatModel("Linf", 2 / 255), n_iter=2)), epochs=10)

# %% [markdown]
# ## Evaluate
#
# Several radii of one norm, another norm, two resolutions. L2 and L1 grow with the image, so that one radius is a
# weaker threat at a higher resolution; Linf is not. With `out=` the folder gets `report.html`, and a stopped
# evaluation goes on.

# %%
threats = [kr.ThreatModel("Linf", 1 / 255), kr.ThreatModel("Linf", 2 / 255), kr.ThreatModel("L2", 0.25)]
val = kr.data.photo_crops("val")
reports = {
    name: kr.evaluation.evaluate(
        model, val, threats, [32, 48], "short", n_examples=100, crop_pct=1.0, out=f"runs/{name}", verbose=False
    )
    for name, model in {"clean": clean, "robust": robust}.items()
}
print(kr.evaluation.table(reports))

# %% [markdown]
# ## Read it
#
# Accuracies come with 95 % Wilson intervals. Of 100 images an accuracy near 50 % is known to about 10 points either
# way: differences within that are no differences, unless the two models are compared image by image.

# %%
report = reports["robust"]
one = report[threats[1], 32]
print("accuracy after each attack:", one.accuracy_after)
print("robust:", one.robust)
print("to all threats at once:", report.union(32))

# %% [markdown]
# Warnings are reasons to doubt a figure: few images, one answer for everything, gradients that vanish, a defence that
# the attacks cannot judge. A figure with a warning is not a result yet.

# %%
for name, of_one in reports.items():
    print(name, of_one.warnings)

# %% [markdown]
# Two models on the same images are compared image by image, by a paired test. The page of the comparison has the
# charts:

# %%
page = kr.evaluation.write_comparison(reports, "runs/both")
print(page)

# %% [markdown]
# ## A whole curve
#
# A threat model without a radius asks for the nearest misclassified image, and so for the accuracy at every radius. It
# must fall to zero in the end: what does not has masked its gradients.

# %%
bound = kr.ThreatModel("Linf", None)
whole = kr.evaluation.evaluate(robust, val, [bound], [32], "short", n_examples=32, crop_pct=1.0, verbose=False)
curve = whole.curve("Linf")
for grey_levels in (0, 1, 2, 4, 8):
    print(f"Linf {grey_levels}/255: {curve.at(grey_levels / 255)}")
