"""Settings and reports of evaluations that nobody ran."""

from dataclasses import replace

import numpy as np

import keras_robust as kr
from keras_robust.evaluation import AttackResult, Picture, Report
from keras_robust.evaluation.result_store import Images
from keras_robust.evaluation.settings import (
    PROPAGATIONS,
    EvaluationSettings,
    ImageSettings,
    ModelSettings,
    ThreatSettings,
)

LINF, WIDE, L2 = kr.ThreatModel("Linf", 4 / 255), kr.ThreatModel("Linf", 8 / 255), kr.ThreatModel("L2", 0.5)
N = 200

SETTINGS = EvaluationSettings(
    keras_robust="0.1.0",
    model=ModelSettings("a", "1" * 64, True, 1000, {32: 1024 * 10**6, 40: 1600 * 10**6}),
    images=ImageSettings(N, "2" * 64, None, False, "name", 0.875, "bicubic"),
    resolutions=(32, 40),
    threats=(ThreatSettings("L2", 0.1, {"apgd-ce": {"attack": "APGD", "seed": 0, PROPAGATIONS: 2}}),),
    attack="short",
    surrogate_sha256=None,
    seed=0,
    batch_size=100,
    backend="tensorflow",
    versions={"python": "3.11"},
)


def result(threat, resolution, clean, robust, shift=0):
    """A result in which the first `clean` images are right, and `robust` of them, from `shift` on, stay so."""
    place = np.arange(N)
    misclassified_at = np.where(place < clean, 1, 0)
    misclassified_at[shift : shift + robust] = 2
    labels = place % 5
    return AttackResult(
        threat,
        resolution,
        ("clean", "apgd-ce"),
        misclassified_at.astype(np.int16),
        np.where(misclassified_at > 0, labels, (labels + 1) % 5),
        np.where(misclassified_at > 1, labels, (labels + 1) % 5),
        np.where(misclassified_at == 1, threat.eps, 0).astype(np.float32),
        {"apgd-ce": np.full(N, 100)},
        {"apgd-ce": 0},
        passes={"apgd-ce": 2},
    )


def report(
    robust,
    name="a <b> & c",
    resolutions=(32, 40),
    threats=(LINF, WIDE, L2),
    shift=0,
    skipped=(),
    image_settings=None,
    multiply_adds=10**6,
    attack_settings=None,
    **changes,
):
    attacks = {"apgd-ce": {"seed": 0, PROPAGATIONS: 2, **(attack_settings or {})}}
    costs = {resolution: multiply_adds and resolution**2 * multiply_adds for resolution in resolutions}
    settings = replace(
        SETTINGS,
        model=replace(SETTINGS.model, name=name, multiply_adds=costs),
        images=replace(SETTINGS.images, **(image_settings or {})),
        resolutions=tuple(resolutions),
        threats=tuple(ThreatSettings(threat.norm, threat.eps, attacks) for threat in threats),
    )
    results = [
        result(threat, resolution, 150, robust - 10 * (threat == WIDE), shift * (threat == L2))
        for resolution in resolutions
        for threat in threats
    ]
    digests, names = np.arange(N).astype(np.uint64), np.array([f"dog/{i}.png" for i in range(N)])
    images = Images(
        np.arange(N), np.arange(N) % 5, digests, names, ("cat", "<dog>", "ant", "bee", "eel"), tuple(skipped)
    )
    pixels = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), np.uint8)
    gallery = [Picture(LINF, 32, pixels, 0, 0, 1)] if LINF in threats else []
    return Report(settings, results, images, **{"gallery": gallery, **changes})
