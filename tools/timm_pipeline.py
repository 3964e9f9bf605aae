"""The same augmentations in timm and torchvision, for tools/benchmark_data.py, which runs this in another environment.

Two ways, of which timm offers both: "loader" is timm's own, with 8-bit batches mixed while they are collated and random
erasing of whole batches; "plain" is a torch DataLoader with everything per image in float32 and timm's Mixup after it.
"""

import sys

import torch
from PIL import Image, ImageOps
from timm.data import FastCollateMixup, Mixup, create_loader, create_transform
from torchvision.datasets import ImageFolder

MIXING = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "prob": 1.0, "switch_prob": 0.5, "label_smoothing": 0.1}
TRANSFORM = {"auto_augment": "rand-m9-mstd0.5-inc1", "interpolation": "bicubic", "re_prob": 0.25, "re_mode": "pixel"}
UNIT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def posterize(image, bits):
    """Pillow 13 refuses 0 bits, which timm asks for now and then."""
    return _posterize(image, bits) if bits else Image.new("RGB", image.size)


_posterize, ImageOps.posterize = ImageOps.posterize, posterize


def batches(kind, folder, resolution, batch_size, count, workers):
    """A function that yields `count` batches, whenever it is called."""
    images = ImageFolder(folder)
    classes = len(images.classes)
    # As many as an epoch needs, whatever the folder holds.
    images.samples = [images.samples[i % len(images.samples)] for i in range(count * batch_size)]
    if kind == "loader":
        return create_loader(
            images,
            (3, resolution, resolution),
            batch_size,
            is_training=True,
            num_workers=workers,
            collate_fn=FastCollateMixup(num_classes=classes, **MIXING),
            device=torch.device("cpu"),
            **TRANSFORM,
            **UNIT,
        ).__iter__
    images.transform = create_transform(resolution, is_training=True, color_jitter=None, **TRANSFORM, **UNIT)
    loader = torch.utils.data.DataLoader(
        images, batch_size, shuffle=True, num_workers=workers, persistent_workers=True, drop_last=True
    )
    mix = Mixup(num_classes=classes, **MIXING)

    def mixed():
        for x, y in loader:
            yield mix(x, y)

    return mixed


def main(kind, folder, *numbers):
    """Pass over the batches once for each line of the standard input."""
    resolution, batch_size, count, workers = map(int, numbers)
    stream = batches(kind, folder, resolution, batch_size, count, workers)
    for _ in sys.stdin:
        seen = 0
        for x, y in stream():
            seen += len(x)
            assert x.shape[1:] == (3, resolution, resolution)
            assert x.dtype == torch.float32
            assert y.dim() == 2
        print(seen, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
