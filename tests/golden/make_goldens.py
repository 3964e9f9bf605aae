"""Logits of PyTorch models with reproducible weights, for tests that do not need timm.

    python -m tests.golden.make_goldens            # writes tests/golden/*.npz
    python -m tests.golden.make_goldens vit_tiny   # only that one

Made with timm 1.0.31 and torch 2.13 or 2.14 (pip install timm==1.0.31 torch==2.14.1 torchvision==0.29.1).
A file holds names and shapes of the tensors, from which the weights are drawn anew (`random_weights.py`), and the
logits in float64 at each size.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from tests.golden.random_weights import images, state_dict
from tests.golden.shrunk import SHRUNK
from tests.golden.torch_models import MODELS

FOLDER = Path(__file__).parent
# Of each family the smallest, or a large one made small (`SHRUNK`). 64 pixels for where the large sizes take too long.
CASES = {
    "convnext_atto": [(224, 224), (200, 168), (64, 64)],
    "convnext_atto_convstem": [(224, 224), (200, 168), (64, 64)],
    "convnext_isotropic_small": [(224, 224), (200, 168), (64, 64)],
    "convnext_isotropic_small_convstem": [(224, 224), (200, 168), (64, 64)],
    "vit_tiny": [(224, 224), (256, 192), (64, 64)],
    "vit_tiny_convstem": [(224, 224), (256, 192), (64, 64)],
    "vit_medium": [(224, 224), (256, 192), (64, 64)],
    "resnet50": [(224, 224), (200, 168), (64, 64)],
    "xcit_small": [(224, 224), (256, 192), (64, 64)],
    "swin_base": [(224, 224), (256, 320)],
    "robarch_small": [(224, 224), (200, 168), (64, 64)],
    "resnet18": [(224, 224), (200, 168), (64, 64)],
    "convnextv2_atto": [(224, 224), (200, 168), (64, 64)],
    "vit_giant_patch14": [(224, 224), (280, 196), (56, 56)],
    "swin_large_mimir": [(224, 224)],
    "swin_large_meansparse": [(224, 224)],
    "convnext_large_meansparse": [(64, 64)],
    "wide_resnet28_10": [(32, 32), (48, 40)],
    "wide_resnet28_10_swish": [(32, 32), (48, 40)],
    "preact_resnet18": [(32, 32), (48, 40)],
    "preact_resnet18_norm": [(32, 32), (48, 40)],
    "preact_resnet18_swish": [(32, 32), (48, 40)],
}
# Follow from the architecture.
DERIVED = ("num_batches_tracked", "relative_position_index", "attn_mask", "flag_update_statistics", "batch_num")


def shapes_of(model):
    return {name: tuple(t.shape) for name, t in model.state_dict().items() if not name.endswith(DERIVED)}


def with_random_weights(model, seed=0):
    """Fills `model` and returns it in float64 and inference mode."""
    derived = {name: t for name, t in model.state_dict().items() if name.endswith(DERIVED)}
    weights = {name: torch.tensor(value) for name, value in state_dict(shapes_of(model), seed).items()}
    model.load_state_dict(weights | derived)
    return model.double().eval()


@torch.no_grad()
def logits(model, x):
    return model(torch.tensor(x).double().permute(0, 3, 1, 2)).numpy()


def main(names):
    for name in names or CASES:
        model = MODELS[name](**SHRUNK.get(name, {}))
        shapes = shapes_of(model)
        with_random_weights(model)
        arrays = {f"{h}x{w}": logits(model, images(h, w)) for h, w in CASES[name]}
        np.savez_compressed(FOLDER / f"{name}.npz", shapes=json.dumps(shapes), **arrays)
        for size, values in arrays.items():
            print(f"{name} {size}: largest {np.abs(values).max():.3g}, {np.abs(values[0] - values[1]).max():.3g} apart")


if __name__ == "__main__":
    main(sys.argv[1:])
