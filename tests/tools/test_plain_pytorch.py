"""What the benchmark compares with is the same model, the same attack and the same loss."""

import keras
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import keras_robust as kr
from keras_robust.models import registry
from keras_robust.models.convnext import ConvNeXt, IsotropicConvNeXt
from keras_robust.models.vit import ViT
from tests import scripts
from tests.models.torch_reference import set_random_weights

pytestmark = pytest.mark.once

ROWS = {
    "convnext": ConvNeXt((1, 2, 1, 1), (8, 12, 16, 24)),
    "convnext_convstem": ConvNeXt((1, 2, 1, 1), (8, 12, 16, 24), conv_stem=(4, 6, 8)),
    "isotropic": IsotropicConvNeXt(2, 16),
    "vit_convstem": ViT(16, 2, depth=2, conv_stem=(4, 6, 8, 12)),
    "vit_of_two_blocks": ViT(16, 2, depth=2, layer_scale_init=1e-6, class_position=False),
}
# The isotropic checkpoints have the names of the original code.
RENAMED = {"dwconv": "conv_dw", "pwconv": "mlp.fc"}
EPS, CLASSES, SIZE = 4 / 255, 5, 32


@pytest.fixture
def plain_pytorch():
    return scripts.load("tools/plain_pytorch.py")


def with_the_same_weights(model, plain, folder):
    kr.weights.save(model, folder / "w.safetensors")
    weights = load_file(folder / "w.safetensors")
    if "head.fc.weight" in plain.state_dict() and "head.fc.weight" not in weights:
        for theirs, ours in RENAMED.items():
            weights = {name.replace(theirs, ours): tensor for name, tensor in weights.items()}
        parts = {"norm": "head.norm", "head": "head.fc"}
        weights = {
            ".".join([parts.get(name.split(".")[0], name.split(".")[0]), *name.split(".")[1:]]): tensor
            for name, tensor in weights.items()
        }
    plain.load_state_dict(weights)
    return plain.eval()


@pytest.fixture
def pair(request, plain_pytorch, tmp_path):
    """A model, the PyTorch model of the same weights, images and classes for each."""
    row = ROWS[request.param]
    registry.register(request.param, row)
    model = kr.models.create(request.param, num_classes=CLASSES, input_size=SIZE)
    set_random_weights(model)
    plain = with_the_same_weights(model, plain_pytorch.create(row, CLASSES, SIZE), tmp_path)
    x = np.random.RandomState(0).uniform(size=(4, SIZE, SIZE, 3)).astype("float32")
    y = np.array([0, 1, 2, 4], "int32")
    return model, plain, (x, y), (torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(y).long())


@pytest.mark.parametrize("pair", ROWS, indirect=True)
def test_same_logits(pair):
    model, plain, (x, _), (images, _) = pair
    logits = model.predict_on_batch(x)
    np.testing.assert_allclose(plain(images).detach(), logits, rtol=0, atol=1e-4 * np.abs(logits).max())


@pytest.mark.parametrize("pair", ["convnext_convstem", "vit_convstem"], indirect=True)
def test_same_attack_and_loss(pair, plain_pytorch):
    model, plain, (x, y), (images, labels) = pair
    attack = kr.attacks.APGD(kr.ThreatModel("Linf", EPS), n_iter=2)
    x_adv = attack(model, x, y)
    theirs = plain_pytorch.apgd(plain, images, labels, EPS, 2).permute(0, 2, 3, 1).numpy()
    # The sign of a gradient that is nearly zero may differ.
    assert (np.abs(theirs - x_adv) > 1e-6).mean() < 2e-3
    assert np.abs(x_adv - x).max() > 0.9 * EPS

    trainer = kr.AdversarialModel(model, attack)
    trainer.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    loss = trainer.train_on_batch(x, y)
    their_loss = plain_pytorch.training_step(plain, torch.optim.SGD(plain.parameters(), 0.0), images, labels, EPS, 2)
    np.testing.assert_allclose(their_loss, loss, rtol=2e-3)


def test_families_that_it_lacks(plain_pytorch):
    assert plain_pytorch.create(registry.ARCHITECTURES["swin_base"], 10, 224) is None
