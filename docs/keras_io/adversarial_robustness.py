"""
Title: Adversarial attacks and adversarial training of image classifiers
Author: The keras_robust authors
Date created: 2026/11/27
Last modified: 2026/11/27
Description: Fooling an image classifier with FGSM and PGD, and training one that is harder to fool.
Accelerator: GPU
"""

"""
## Introduction

Change every pixel of an image by a few grey levels of 255, in the right direction, and an image classifier takes it
for something else, while a person sees no difference. Such images are *adversarial*. This example finds them with two
classic attacks, in pure Keras 3 on any backend:

- **FGSM**, one step along the sign of the gradient of the loss
  ([Goodfellow et al., 2015](https://arxiv.org/abs/1412.6572));
- **PGD**, several smaller steps, each projected back into the ball of allowed changes
  ([Madry et al., 2018](https://arxiv.org/abs/1706.06083)).

Then it trains on what PGD finds, *adversarial training*, which is still the defence that holds best. The last part
does the same with the package `keras_robust`, and measures with stronger attacks.

What an attacker may do is a *threat model*, here the Linf ball: no value of a pixel, in [0, 1], changes by more than a
radius `eps`. Robustness is always robustness to such a threat model.
"""

"""
## Setup

The last part needs the package: `pip install keras-robust` from its checkout, with `[images]` for the bundled
photographs.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # or "jax", "torch"

import keras
import numpy as np
from keras import layers, ops

keras.utils.set_random_seed(0)

EPS = 4 / 255  # radius of the Linf ball
CLEAN_EPOCHS = 10
ADVERSARIAL_EPOCHS = 10
BATCH_SIZE = 128

"""
## Data

CIFAR-10: 60,000 images of 32 x 32 pixels in ten classes. Where it cannot be downloaded, crops of ten photographs that
come with scikit-image take its place. That is a much easier task, so its figures are not comparable with those on
CIFAR-10; which of the two was used is printed.
"""


def load_images():
    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.cifar10.load_data()
        name = "CIFAR-10"
    except Exception as error:  # no network: Keras passes on what the download met
        print(f"CIFAR-10 is not to be had ({error}).")
        import keras_robust as kr

        x_train, y_train = kr.data.photo_crops("train").arrays(32, crop_pct=1.0)
        x_test, y_test = kr.data.photo_crops("val").arrays(32, crop_pct=1.0)
        name = "crops of ten photographs, NOT CIFAR-10"
    x_train, x_test = x_train.astype("float32") / 255, x_test.astype("float32") / 255
    return name, (x_train, y_train.reshape(-1)), (x_test[:500], y_test[:500].reshape(-1))


data_name, (x_train, y_train), (x_test, y_test) = load_images()
print(f"{data_name}: {len(x_train)} training images, {len(x_test)} test images")

"""
## A small model

Pixels in [0, 1] go in and logits come out. Both matter: `eps` then has the meaning above, and the gradients of
confident answers do not vanish in a softmax.
"""


def make_model():
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="gelu")(inputs)
    x = layers.Conv2D(64, 3, padding="same", activation="gelu")(x)
    x = layers.Conv2D(128, 3, strides=2, padding="same", activation="gelu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def compile_and_fit(model, epochs, **options):
    model.compile(
        keras.optimizers.AdamW(2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **options,
    )
    model.fit(x_train, y_train, batch_size=BATCH_SIZE, epochs=epochs, verbose=2)


clean_model = make_model()
compile_and_fit(clean_model, CLEAN_EPOCHS)

"""
## Gradients with respect to the image

The only part that is not the same on all backends.
"""


def cross_entropy(y, logits):
    return keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)


def input_gradient(model, x, y):
    """Gradient of the cross-entropy of each image with respect to its pixels."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = ops.sum(cross_entropy(y, model(x, training=False)))
        return tape.gradient(loss, x)
    if backend == "jax":
        import jax

        return jax.grad(lambda x: ops.sum(cross_entropy(y, model(x, training=False))))(x)
    import torch

    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(ops.sum(cross_entropy(y, model(x, training=False))), x)[0]


"""
## FGSM and PGD

A step along the sign of the gradient raises the loss the most that a small change of Linf norm can. Afterwards the
image is projected: into the ball around the original, and into [0, 1].
"""


def project(x_adv, x, eps):
    return ops.clip(ops.clip(x_adv, x - eps, x + eps), 0.0, 1.0)


def fgsm(model, x, y, eps):
    return project(x + eps * ops.sign(input_gradient(model, x, y)), x, eps)


def pgd(model, x, y, eps, steps=10, random_start=True):
    step_size = 2.5 * eps / steps
    x_adv = project(x + keras.random.uniform(ops.shape(x), -eps, eps), x, eps) if random_start else x
    for _ in range(steps):
        x_adv = project(x_adv + step_size * ops.sign(input_gradient(model, x_adv, y)), x, eps)
    return x_adv


"""
How much accuracy is left? An attack gives an upper bound: what it does not break, a stronger one may.
"""


def accuracy(model, attack=None, **options):
    correct = []
    for start in range(0, len(x_test), BATCH_SIZE):
        x = ops.convert_to_tensor(x_test[start : start + BATCH_SIZE])
        y = ops.convert_to_tensor(y_test[start : start + BATCH_SIZE])
        x = x if attack is None else attack(model, x, y, EPS, **options)
        answers = ops.convert_to_numpy(ops.argmax(model(x, training=False), axis=-1))
        correct.append(answers == y_test[start : start + BATCH_SIZE])
    return float(np.mean(np.concatenate(correct)))


def report(name, model):
    print(
        f"{name}: clean {accuracy(model):.3f}, FGSM {accuracy(model, fgsm):.3f}, "
        f"PGD-20 {accuracy(model, pgd, steps=20):.3f}"
    )


report("ordinary training", clean_model)

"""
## Adversarial training

The same model, but every batch is attacked before the step is made on it: a `keras.Model` around the net whose
`train_step` makes the adversarial batch and hands it to Keras' own step. The training attack is short, as it runs in
every step. It starts from the clean weights: from random ones such a training can end in one answer for everything.

This wrapper is for the TensorFlow and PyTorch backends, whose `train_step` keeps its state in the model. In JAX's,
which is a pure function, the attack needs the state passed on; `keras_robust` below does it on all three.
"""


class AdversariallyTrained(keras.Model):
    def __init__(self, net, eps, steps=2):
        super().__init__()
        self.net, self.eps, self.steps = net, eps, steps

    def call(self, x, training=False):
        return self.net(x, training=training)

    def train_step(self, data):
        x, y = data
        x_adv = pgd(self.net, x, y, self.eps, self.steps, random_start=False)
        return super().train_step((x_adv, y))


robust_model = make_model()
robust_model.set_weights(clean_model.get_weights())
if keras.backend.backend() != "jax":
    compile_and_fit(AdversariallyTrained(robust_model, EPS), ADVERSARIAL_EPOCHS)
    report("adversarial training", robust_model)

"""
The robust model has lower clean accuracy and far higher accuracy under attack. Never take the accuracy that training
logs for robustness: it is measured by the weak attack that the model was trained on.

## The same with keras_robust

`AdversarialModel` is that wrapper on every backend, with mixed precision, averages of the weights and an accuracy
under a stronger attack in validation. Its attack here is APGD, which chooses its step size itself ([Croce and Hein,
2020](https://arxiv.org/abs/2003.01690)).
"""

import keras_robust as kr

threat = kr.ThreatModel("Linf", EPS)
packaged_model = make_model()
packaged_model.set_weights(clean_model.get_weights())
trainer = kr.AdversarialModel(packaged_model, kr.attacks.APGD(threat, n_iter=2))
compile_and_fit(trainer, ADVERSARIAL_EPOCHS)
report("keras_robust", packaged_model)

"""
AutoAttack is what the field compares by: an ensemble without parameters to tune, which also warns of models that it
cannot judge. Its accuracy is lower than PGD's, and closer to the truth.
"""

for name, model in {"ordinary": clean_model, "keras_robust": packaged_model}.items():
    print(name)
    print(kr.attacks.AutoAttack(threat, version="short")(model, x_test[:200], y_test[:200]))

"""
## Where to go from here

- Larger models, and augmentation: [Singh et al., 2023](https://arxiv.org/abs/2303.01870) train ConvNeXt and ViT to
  more than 50 % robust accuracy on ImageNet.
- Other threat models: a model that is robust under Linf may be fooled under L2 or L1. Evaluate there, too.
- What small balls leave out: blur, rotations, other photographs of the same thing.
"""
