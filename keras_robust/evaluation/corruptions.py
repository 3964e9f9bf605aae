"""Common corruptions: noise, blur, weather and compression at five severities each, and how much of a model they leave.

Hendrycks & Dietterich 2019, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR.
"""

import math
import threading
from collections.abc import Mapping

import numpy as np

# Errors of AlexNet on ImageNet-C, the mean over the severities, by which corruption errors are divided: as published
# beside the data set (github.com/hendrycks/robustness), to more digits than in the publication's table 1.
ALEXNET: dict[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
ALEXNET_CLEAN = 0.435  # table 1
SEVERITIES = (1, 2, 3, 4, 5)
VERSIONS = tuple(f"{name}/{severity}" for name in ALEXNET for severity in SEVERITIES)
# Between which each figure of `scores` lies: corruption may also help, so that the relative one has no limits.
LIMITS = {"mean accuracy": (0.0, 1.0), "mCE": (0.0, math.inf), "relative mCE": (-math.inf, math.inf)}
SMALLEST = 32  # pixels, below which some corruptions are not defined
ON_THE_FLY = (
    "made by imagecorruptions {version} at the resolution evaluated, with the settings of ImageNet-C and without its "
    "last JPEG compression: read them beside each other, not beside figures of ImageNet-C's files ({packages}; seed "
    "{seed})"
)
SEEDED = ("impulse_noise", "glass_blur")  # by an argument; the others by numpy's global state
_global_state = threading.Lock()


def corrupt(image: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    """A corrupted image, by the package imagecorruptions, which follows the code of the publication.

    Args:
        image: uint8 (height, width, 3), of at least 32 pixels each way.
        name: of a corruption, see `ALEXNET`.
        severity: 1 to 5.
        seed: of what is drawn, below 2**32: the same gives the same image.

    Raises:
        ImportError: imagecorruptions is not installed.

    Example:
        >>> kr.evaluation.corruptions.corrupt(np.zeros((32, 32, 3), np.uint8), "fog", 5, seed=0)  # doctest: +SKIP
    """
    try:
        from imagecorruptions import corruptions
    except ImportError as error:
        raise ImportError(
            f"corruptions that are made on the fly need {error.name}: pip install 'keras-robust[corruptions]'"
        ) from error
    from PIL import Image

    options = {"seed": seed} if name in SEEDED else {}
    with _global_state:
        before = np.random.get_state()  # noqa: NPY002
        np.random.seed(seed)  # noqa: NPY002
        try:
            corrupted = getattr(corruptions, name)(Image.fromarray(image), severity, **options)
        finally:
            np.random.set_state(before)  # noqa: NPY002
    return np.asarray(corrupted).astype(np.uint8)


def seed_of(seed: int, place: int, version: str) -> int:
    """The seed of one version of one image, from that of the evaluation and the image's place in it."""
    return int(np.random.SeedSequence([seed, place, VERSIONS.index(version)]).generate_state(1)[0])


def scores(correct: Mapping[str, np.ndarray], clean: np.ndarray, normalised: bool) -> dict[str, np.ndarray]:
    """What each image contributes to the figures that sum corruptions up, (n,) each: the figure is the mean.

    "mean accuracy" over all corruptions and severities; where it makes sense, "mCE" (mean corruption error) and
    "relative mCE" (of what corruption adds to the error), each divided by AlexNet's: 1 is as bad as AlexNet.

    Args:
        correct: corruption/severity -> images that are classified correctly, booleans (n,).
        clean: the same without corruption.
        normalised: whether the images are ImageNet's; without all 15 corruptions at all severities there is no mCE.
    """
    found = {"mean accuracy": np.mean(list(correct.values()), axis=0)}
    if normalised and set(VERSIONS) <= set(correct):
        errors = {name: 1.0 - np.mean([correct[f"{name}/{each}"] for each in SEVERITIES], axis=0) for name in ALEXNET}
        found["mCE"] = np.mean([errors[name] / ALEXNET[name] for name in ALEXNET], axis=0)
        added = [(errors[name] - (1.0 - clean)) / (ALEXNET[name] - ALEXNET_CLEAN) for name in ALEXNET]
        found["relative mCE"] = np.mean(added, axis=0)
    return found
