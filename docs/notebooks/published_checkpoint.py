# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Load a published PyTorch checkpoint
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/keras_robust/blob/notebooks/published_checkpoint.ipynb)
#
# A file as robustness papers publish it, read into a Keras model that gives the same logits.
#
# **The weights here are a stand-in**: random ones, which this notebook makes itself with a seed, under the names and
# in the wrapping of a published file, so that it runs without a download. They classify nothing. With the real file,
# the same lines give the real model.

# %%
# Once, in Colab or wherever the package is missing:
# # %pip install -q "keras-robust[quickstart,torch] @ git+https://github.com/OWNER/keras_robust"

# %%
import keras
import numpy as np
import torch
from torch import nn

import keras_robust as kr

# %% [markdown]
# ## What is published
#
# The checkpoints of RobustBench's ImageNet board and some others are known by name, with their figures: accuracy in %
# without attack and under AutoAttack at Linf 4/255. The ResNets:

# %%
for name, preset in kr.models.presets().items():
    if preset.architecture.startswith("resnet"):
        print(f"{name:36}{preset.robustbench or '':24}{preset.clean:8}{preset.linf:8}   {preset.licence}")

# %% [markdown]
# ## A stand-in for its file
#
# A ResNet-18 in plain PyTorch. Its state is saved as training scripts leave it: of a model in `DataParallel`, under
# "state_dict", beside other things.


# %%
class Block(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.downsample = None
        if stride > 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x):
        h = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (h + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet18(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for i, (before, after) in enumerate([(64, 64), (64, 128), (128, 256), (256, 512)], start=1):
            blocks = Block(before, after, 1 if i == 1 else 2), Block(after, after, 1)
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        self.fc = nn.Linear(512, 1000)

    def forward(self, x):
        h = self.maxpool(self.bn1(self.conv1(x)).relu())
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            h = layer(h)
        return self.fc(h.mean((2, 3)))


torch.manual_seed(0)
theirs = ResNet18()
theirs(torch.rand(8, 3, 64, 64))  # in training mode, so that the statistics of batch norm are not those of a fresh net
theirs.eval()
state = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
torch.save({"epoch": 100, "arch": "resnet18", "state_dict": state}, "resnet18_standin.pt")

# %% [markdown]
# ## Load it by the published name
#
# The name knows architecture, normalisation and preprocessing. Only tensors are read: a file that could run code is
# refused. Loading is strict, and says what does not fit. Without `weights=` the real file is downloaded.

# %%
model = kr.models.from_preset("Salman2020Do_R18", weights="resnet18_standin.pt")
print(kr.models.preset("Salman2020Do_R18"))
print(model.preprocessing)

# %% [markdown]
# ## The same logits?
#
# Models here take pixels in [0, 1] and normalise them inside, PyTorch's are given normalised ones. To rounding of
# float32:

# %%
pixels = kr.data.resize_and_crop(kr.data.photo_crops("val").photo(3), 224, crop_pct=1.0)[None].astype("float32") / 255
mean, std = np.array([0.485, 0.456, 0.406], "float32"), np.array([0.229, 0.224, 0.225], "float32")
with torch.no_grad():
    expected = theirs(torch.from_numpy(((pixels - mean) / std).transpose(0, 3, 1, 2).copy())).numpy()
logits = keras.ops.convert_to_numpy(model(pixels))
print(f"largest difference: {np.abs(logits - expected).max():.1e} of logits up to {np.abs(expected).max():.2f}")
assert np.allclose(logits, expected, atol=1e-3 * np.abs(expected).max())

# %% [markdown]
# ## From here
#
# - Evaluate: `keras-robust evaluate --model Salman2020Do_R18 --data imagenet/val --out runs/imagenet`
# - Start from it on your own images, with a new head:
#   `python recipes/finetune.py --data photos --start FILE --set start.new=head --set model.name=resnet18`
# - Give it back, under timm's names:

# %%
kr.weights.save(model, "for_pytorch.safetensors")
