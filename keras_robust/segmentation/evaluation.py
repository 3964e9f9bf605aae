"""Evaluation of segmentation models under SEA: resumable, with worst cases, intervals and pictures."""

import hashlib
import json
import sys
import warnings as python_warnings
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_robust.attacks import APGD, sanity_checks
from keras_robust.attacks.suite import float32_copy, is_differentiable, predictions
from keras_robust.batch_checks import check_batch, class_count
from keras_robust.checks import check_count
from keras_robust.evaluation.fingerprint import fingerprint, probes
from keras_robust.evaluation.result_store import check_same, write_arrays
from keras_robust.files import read_json, write_text
from keras_robust.npz import read_arrays
from keras_robust.progress import ProgressLine
from keras_robust.segmentation.counts import PixelCounts, joined
from keras_robust.segmentation.losses import balancing_weights, class_counts
from keras_robust.segmentation.report import PICTURES, SegmentationReport, ThreatFigures, write
from keras_robust.segmentation.sea_attacks import ITERATIONS, sea
from keras_robust.threat import ThreatModel
from keras_robust.versions import installed_versions, version

SETTINGS, STATE = "settings.json", "state"
CLEAN = "clean"


def evaluate(
    model: keras.Layer,
    x: np.ndarray,
    y: np.ndarray,
    threats: Sequence[ThreatModel] = (),
    n_iter: int = ITERATIONS,
    batch_size: int = 8,
    seed: int = 0,
    class_weights: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    out: str | PathLike | None = None,
    verbose: bool = True,
) -> SegmentationReport:
    """Mean IoU and pixel accuracy of a model, clean and under SEA, over a data set at one size.

    Every figure is of the answers of the uncompiled model in float32 to images that were checked to lie in the threat
    model. The worst case of a threat model is taken over its three attacks and the clean image, which an adversary may
    leave alone: of each image the answer with the fewest right pixels for accuracy, and those that together give the
    lowest mean IoU.

    Args:
        model: to logits (batch, height, width, classes), as from `kr.segmentation.create`; or an exported one, as
            `kr.export.load_model` returns it: a SavedModel has gradients to attack it by, ONNX and LiteRT have none.
        x: images (n, height, width, 3): uint8, or floats in [0, 1].
        y: class indices (n, height, width), -1 for pixels that do not count.
        threats: threat models under Linf; without any the figures are those of the images themselves.
        n_iter: gradient steps of each attack; 300 in the publication.
        batch_size: images attacked at a time.
        seed: of the attacks' random starts.
        class_weights: of the balanced loss; by default in inverse proportion to each class's pixels in `y`.
        class_names: for the report.
        out: folder for the report (`report.json`, `report.md`, `pictures.png`) and for what is found on the way: a
            stopped evaluation goes on where it was, at the same arguments.
        verbose: whether a line says how far it is.

    Raises:
        ValueError: an argument is not as described; threats for a model without gradients; `out` holds an evaluation of
            another model, other data or settings.

    Example:
        >>> net = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(3, 3, padding="same")])
        >>> images, masks = np.full((2, 32, 32, 3), 128, "uint8"), np.ones((2, 32, 32), "int32")
        >>> threats = [kr.ThreatModel("Linf", 4 / 255)]
        >>> report = evaluate(net, images, masks, threats, n_iter=3, batch_size=2, verbose=False)
        >>> report.threats[0].worst_mean_iou <= report.clean.mean_iou()
        True
    """
    check_count("n_iter", n_iter, least=3)
    batch_size = min(check_count("batch_size", batch_size), len(x))
    threats = list(threats)
    if threats and not is_differentiable(model):
        raise ValueError(
            "threats must be none for a model without gradients: all attacks of SEA follow them. Attack the model that "
            f"it was exported from, or its SavedModel; received {', '.join(map(str, threats))}."
        )
    if len(y) != len(x):
        raise ValueError(f"y must hold a mask for each of the {len(x)} images; received {len(y)}.")
    # What was exported is in float32 already.
    evaluation = _Evaluation(float32_copy(model) if isinstance(model, keras.Model) else model, x, y, batch_size)
    weights = balancing_weights(evaluation.class_counts) if class_weights is None else tuple(class_weights)
    suites = {threat.spec: sea(threat, weights, n_iter, seed) for threat in threats}
    names = tuple(class_names) if class_names is not None else tuple(map(str, range(evaluation.num_classes)))
    if len(names) != evaluation.num_classes:
        raise ValueError(f"class_names must be {evaluation.num_classes}, one for each class; received {names!r}.")
    settings = {
        "keras_robust": version("keras-robust"),
        "backend": keras.backend.backend(),
        "versions": installed_versions(("keras", "numpy", keras.backend.backend())),
        "model": fingerprint(evaluation.model, evaluation.probe()),
        "data": evaluation.data_hash(),
        "threats": list(suites),
        "n_iter": n_iter,
        "batch_size": batch_size,
        "seed": seed,
        "class_weights": [float(weight) for weight in weights],
    }
    store = _Store(None if out is None else Path(out), settings)
    line = ProgressLine(sys.stderr if verbose else None)
    doubts = list(dict.fromkeys(evaluation.doubts()))
    work = [(None, CLEAN, None)] + [
        (spec, name, attack) for spec, each in suites.items() for name, attack in each.items()
    ]
    found: dict[tuple[str | None, str], tuple[PixelCounts, np.ndarray]] = {}
    for step, (spec, name, attack) in enumerate(work):
        parts: list[PixelCounts] = []
        pictures: list[np.ndarray] = []
        for batch in range(evaluation.n_batches):
            line.show(
                f"{spec or ''} {name}: batch {batch + 1} of {evaluation.n_batches}, attack {step} of {len(work) - 1}"
            )
            key = f"{'clean' if spec is None else spec.replace(':', '-').replace('/', '_')}-{name}-{batch}"
            held = store.get(key)
            if held is None:
                held = evaluation.run(attack, batch)
                store.put(key, held)
            parts.append(PixelCounts(held["right"], held["labelled"], held["answered"]))
            pictures.append(held["pictures"])
            doubts += [str(text) for text in held["warnings"]]
        found[spec, name] = joined(parts), np.concatenate(pictures)[:PICTURES]
    line.close()
    clean, shown = found[None, CLEAN]
    figures = tuple(
        ThreatFigures(
            threat,
            {name: found[threat.spec, name][0] for name in suites[threat.spec]},
            clean,
            {name: found[threat.spec, name][1] for name in suites[threat.spec]},
        )
        for threat in threats
    )
    doubts += sanity_checks.of_answers(clean.answered.sum(0), clean.labelled.sum(0), "pixels")
    doubts += sanity_checks.of_radii({each.threat.eps: each.worst_pixel_accuracy for each in figures})
    first = min(PICTURES, len(x))
    report = SegmentationReport(
        settings, names, clean, figures, tuple(dict.fromkeys(doubts)), x[:first], np.asarray(y[:first]), shown
    )
    if out is not None:
        write(report, out)
    return report


class _Evaluation:
    """A model and its data, in batches of one size."""

    def __init__(self, model: keras.Layer, x: np.ndarray, y: np.ndarray, batch_size: int) -> None:
        self.model, self.x, self.y, self.batch_size = model, x, np.asarray(y), batch_size
        self.n_batches = -(-len(x) // batch_size)
        # All labels are looked at once; of the images each batch by the attack on it.
        images, labels, _ = self._batch(0)
        check_batch(model, images, labels, dense=True)
        self.num_classes = class_count(model, images, dense=True)
        if self.y.min() < -1 or self.y.max() >= self.num_classes:
            raise ValueError(
                f"y must be class indices in [0, {self.num_classes - 1}] or -1; "
                f"received values in [{self.y.min()}, {self.y.max()}]."
            )
        self.class_counts = class_counts(self.y, self.num_classes)

    def _batch(self, batch: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Images as floats and labels, the last ones repeated up to the size of a batch, and how many there are."""
        rows = np.arange(batch * self.batch_size, (batch + 1) * self.batch_size)
        count = min(len(rows), len(self.x) - rows[0])
        rows = np.minimum(rows, len(self.x) - 1)
        images = self.x[rows]
        if images.dtype == np.uint8:
            images = images.astype("float32") / np.float32(255)
        return images.astype("float32"), self.y[rows].astype("int32"), count

    def answers(self, images: np.ndarray) -> np.ndarray:
        """Classes of pixels, int32 (batch, height, width), by the uncompiled model; -1 where a logit is NaN."""
        logits = keras.ops.convert_to_numpy(self.model(keras.ops.convert_to_tensor(images), training=False))
        return predictions(logits.reshape(-1, self.num_classes)).reshape(logits.shape[:3])

    def run(self, attack: APGD | None, batch: int) -> dict[str, np.ndarray]:
        """What an attack, or None for the images themselves, makes of a batch."""
        images, labels, count = self._batch(batch)
        with python_warnings.catch_warnings(record=True) as caught:
            python_warnings.simplefilter("always")
            if attack is not None:
                images = attack(self.model, images, labels, first_index=batch * self.batch_size)
        answers = self.answers(images)[:count]
        counts = PixelCounts.of(answers, labels[:count], self.num_classes)
        shown = max(0, min(count, PICTURES - batch * self.batch_size))
        return {
            "right": counts.right,
            "labelled": counts.labelled,
            "answered": counts.answered,
            "pictures": answers[:shown].astype("int16"),
            "warnings": np.array([str(each.message) for each in caught if each.category is UserWarning], dtype=str),
        }

    def doubts(self) -> Iterator[str]:
        """What speaks against judging this model by gradients."""

        def flat(images: np.ndarray) -> np.ndarray:
            logits = self.model(keras.ops.convert_to_tensor(images), training=False)
            return keras.ops.convert_to_numpy(logits).reshape(len(images), -1)

        yield from sanity_checks.of_outputs(flat, self._batch(0)[0])

    def probe(self) -> np.ndarray:
        """Answers to images that tell functions apart, (n, classes)."""
        images = probes(64, self.x.shape[-1])[::8]
        logits = self.model(keras.ops.convert_to_tensor(images), training=False)
        return keras.ops.convert_to_numpy(logits).reshape(-1, self.num_classes)

    def data_hash(self) -> str:
        digest = hashlib.sha256()
        for array in (self.x, self.y):
            digest.update(f"{array.shape}{array.dtype}".encode())
            for part in array:
                digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


class _Store:
    """What was found, a file for each attack on each batch; nothing is kept without a folder."""

    def __init__(self, folder: Path | None, settings: dict[str, Any]) -> None:
        self._folder = None if folder is None else folder / STATE
        if folder is None:
            return
        (folder / STATE).mkdir(parents=True, exist_ok=True)
        path = folder / SETTINGS
        if path.is_file():
            check_same(settings, read_json(path), f"out is {folder}, which holds another evaluation")
        else:
            write_text(path, json.dumps(settings, indent=1, sort_keys=True))

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        path = None if self._folder is None else self._folder / f"{key}.npz"
        return read_arrays(path) if path is not None and path.is_file() else None

    def put(self, key: str, found: dict[str, np.ndarray]) -> None:
        if self._folder is not None:
            write_arrays(self._folder / f"{key}.npz", found)
