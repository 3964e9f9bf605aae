"""A program: a run from image files with heavy augmentation, its evaluation by the command, and the report.

python -m tests.one_framework tests.recipes.alone FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from keras_robust.cli import evaluate
from keras_robust.recipes import train
from tests.recipes import tiny


def files(folder):
    """JPEG and PNG files of two classes, a colour each, and noise."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("red", "green")):
        for split, count in (("train", 8), ("val", 4)):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                picture = rng.integers(0, 120, (18 + i, 20, 3))
                picture[:, :, label] += 110
                suffix = "png" if i % 2 else "jpg"
                Image.fromarray(picture.astype(np.uint8)).save(folder / split / name / f"{i}.{suffix}")
    return folder


if __name__ == "__main__":
    out = Path(sys.argv[1])
    photos = files(out / "photos")
    train(
        tiny.recipe(photos, "training.epochs=1", "training.steps_per_epoch=2", "evaluation.n_examples=8"), out / "run"
    )
    what = ["--model", str(out / "run" / "best.keras"), "--data", str(photos / "val"), "--resolutions", "16"]
    how = ["--threats", "Linf:64/255,128/255", "--attack", "short", "--out", str(out / "report")]
    sys.exit(evaluate.main([*what, *how]))
