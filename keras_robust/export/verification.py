"""Prove that what was exported is what was evaluated."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_robust.export.isolated_process import FreshProcess
from keras_robust.export.model_card import CLASS_NAMES
from keras_robust.export.reference import Reference, VerificationSettings, attacked, predict
from keras_robust.threat import ThreatModel

if TYPE_CHECKING:
    from keras_robust.export.formats import Format


ROBUST_TOLERANCE = 0.01  # a point of accuracy
# Of images resized inside the graph, which rounds halves otherwise than Pillow's integers do.
PIXEL_TOLERANCE, PART_TOLERANCE, FILE_TOLERANCE = 2, 0.01, 0.02  # levels of 255, part of all values, of a probability
THROUGHPUT_BATCH = 32
ROUNDS = (3, 40)  # of timing, at least and at most


@dataclass(frozen=True)
class Check:
    """A comparison with a bound; `passed` says whether the value keeps it."""

    name: str
    value: float
    bound: str
    passed: bool


@dataclass
class Verification:
    """The checks and measurements of an exported model.

    Attributes:
        checks: comparisons, each with its bound.
        measured: size in bytes, seconds to load, milliseconds for one image and images per second in batches of
            `THROUGHPUT_BATCH` (of pixels, no more than were verified), and accuracies; those of the original are called
            "original_...".
    """

    checks: list[Check] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> list[Any]:
        """Names of the checks that failed."""
        return [check.name for check in self.checks if not check.passed]

    def at_most(self, name: str, value: float, bound: float) -> None:
        self.checks.append(Check(name, float(value), f"<= {bound:g}", bool(value <= bound)))

    def at_least(self, name: str, value: Any, bound: Any) -> None:
        self.checks.append(Check(name, float(value), f">= {bound:g}", bool(value >= bound)))

    def table(self) -> Any:
        """The checks and the measurements as text."""
        lines = [f"{'check':58}{'value':>10}  {'bound':10}"]
        for check in self.checks:
            lines.append(f"{check.name:58}{check.value:10.3g}  {check.bound:10}{'ok' if check.passed else 'FAILED'}")
        lines.append("")
        lines += [f"{name.replace('_', ' '):58}{value:10.4g}" for name, value in self.measured.items()]
        return "\n".join(lines)

    def json(self, **facts: Any) -> str:
        """The same as JSON, with further facts."""
        passed = not self.failed
        return json.dumps({"passed": passed, **facts, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def of_json(cls, text: Any) -> Any:
        """What `json` wrote."""
        content = json.loads(text)
        return cls([Check(**check) for check in content["checks"]], content["measured"])


def verify(
    path: Path,
    name: str,
    row: "Format",
    dtype: str,
    model: keras.Model,
    threat: ThreatModel,
    settings: VerificationSettings,
    reference: Reference,
    documents: dict[str, str],
) -> "Verification":
    """Compare what lies at `path` with the original, in a fresh process, and attack it.

    Args:
        path: of the artefact.
        name, row, dtype: the format, its row of the table, and its variant.
        model: the original, on the active backend.
        threat: the threat model of the attack.
        settings: a `VerificationSettings`.
        reference: a `Reference` of the original.
        documents: the texts that must be inside.
    """
    result = Verification()
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    result.measured["size_bytes"] = sum(file.stat().st_size for file in files)
    with FreshProcess(name, path) as fresh:
        result.measured["load_seconds"] = fresh.load_seconds
        missing = [file for file, text in documents.items() if fresh.documents.get(file) != text]
        result.at_most("documents inside that are missing or changed", len(missing), 0)
        _compare(result, fresh, row, dtype, reference)
        _time(result, fresh, row, model, settings, reference)
    if row.differentiable and not result.failed:
        _attack(result, path, threat, settings, reference)
    return result


def _compare(result: "Verification", fresh: FreshProcess, row: "Format", dtype: str, reference: Reference) -> None:
    tolerance = row.tolerances[dtype]
    for side, expected in reference.logits.items():
        pixels = reference.pixels[side]
        logits = fresh.logits(pixels.astype(np.float32) / 255)
        result.at_most(
            f"logits, {side} px, {len(pixels)} images: relative difference", _apart(logits, expected), tolerance
        )
    side = next(iter(reference.pixels))
    pixels, expected = reference.pixels[side], reference.logits[side]
    alone = fresh.logits(pixels[:1].astype(np.float32) / 255)
    result.at_most(f"logits, {side} px, one image: relative difference", _apart(alone, expected[:1]), tolerance)
    wide = fresh.logits(reference.wide.astype(np.float32) / 255)
    shape = "x".join(map(str, reference.wide.shape[1:3]))
    result.at_most(f"logits, {shape} px: relative difference", _apart(wide, reference.wide_logits), tolerance)
    outputs = fresh.predict(pixels)
    # A logit that moves by d moves a probability by d / 2 at most.
    bound = 0.5 * tolerance * np.abs(expected).max()
    what = "probabilities of 8-bit images: difference"
    result.at_most(what, np.abs(_probabilities(outputs) - _softmax(expected, outputs)).max(), bound)
    if "confidences" in outputs:
        chosen = np.take_along_axis(expected, outputs["classes"].astype(int)[..., None], -1)[..., 0]
        wrong = chosen < expected.max(-1) - 4 * bound  # two logits, each off by twice the bound
        result.at_most("pixels with a class that is not the most probable one", wrong.sum(), 0)
    if "top5_classes" in outputs:
        probabilities = outputs["probabilities"]
        chosen = np.take_along_axis(probabilities, outputs["top5_classes"].astype(int), 1)
        ordered = -np.sort(-probabilities, 1)[:, : chosen.shape[1]]
        wrong = (chosen != ordered) | (outputs["top5_probabilities"] != ordered)
        wrong[:, 0] |= outputs["classes"] != outputs["top5_classes"][:, 0]
        result.at_most("top-5 classes that are not the most probable ones", wrong.sum(), 0)
    if "names" in outputs:
        names = np.array(fresh.documents[CLASS_NAMES].splitlines())
        wrong = (outputs["top5_names"] != names[outputs["top5_classes"]]).any(1)
        wrong |= outputs["names"] != names[outputs["classes"]]
        result.at_most("images with names that are not those of their classes", wrong.sum(), 0)
    if "jpeg" in row.signatures:
        outputs = fresh.predict_files(reference.files)
        apart = np.abs(outputs["images"].astype(int) - reference.file_pixels)
        what = f"{len(apart)} JPEG and PNG files"
        result.at_most(f"pixels of {what}: largest difference of 255", apart.max(), PIXEL_TOLERANCE)
        result.at_most(f"pixels of {what}: part that differs", (apart > 0).mean(), PART_TOLERANCE)
        apart = np.abs(_probabilities(outputs) - _softmax(reference.file_logits, outputs))
        # Of single pixels a few may lie where a model jumps.
        value = np.quantile(apart, 1 - PART_TOLERANCE) if "confidences" in outputs else apart.max()
        result.at_most(f"probabilities of {what}: difference", value, FILE_TOLERANCE)
    broken = fresh.logits(reference.x_adv).argmax(-1) == reference.labels
    transfer = abs(float(broken.mean() - reference.robust.mean()))
    result.at_most("accuracy on the original's adversarial images: difference", transfer, ROBUST_TOLERANCE)
    result.measured["accuracy_on_adversarial_images_of_the_original"] = float(broken.mean())


def _attack(
    result: "Verification", path: Path, threat: ThreatModel, settings: VerificationSettings, reference: Reference
) -> None:
    """White-box: the same attack through the artefact's own gradients."""
    side = next(iter(reference.pixels))
    x = reference.pixels[side].astype(np.float32) / 255
    model = differentiable(path)
    x_adv = attacked(model, threat, x, reference.labels, settings.n_iter)
    robust = predict(model, x_adv).argmax(-1) == reference.labels
    apart = abs(float(robust.mean() - reference.robust.mean()))
    result.at_most("robust accuracy under the artefact's own gradients: difference", apart, ROBUST_TOLERANCE)
    clean = reference.logits[side].argmax(-1) == reference.labels
    result.measured |= {
        "clean_accuracy": float(clean.mean()),
        "original_robust_accuracy": float(reference.robust.mean()),
        "robust_accuracy": float(robust.mean()),
    }


def differentiable(path: Path) -> keras.Model:
    """A callable from pixels to logits that gradients flow through, of a SavedModel or a .keras file."""
    if path.is_file():
        return keras.models.load_model(path, compile=False)
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # whose weights live as long as it
    return lambda x: loaded.signatures["logits"](images=x)["logits"]


def _time(
    result: "Verification",
    fresh: FreshProcess,
    row: "Format",
    model: keras.Model,
    settings: VerificationSettings,
    reference: Reference,
) -> None:
    """Latency and throughput in turns with the original's, so that what else the machine does falls on both."""
    x = next(iter(reference.pixels.values())).astype(np.float32) / 255

    def original(images: np.ndarray) -> float:
        start = time.perf_counter()
        model.predict_on_batch(images)
        return time.perf_counter() - start

    def times(batch: int, bound: Any = None) -> tuple[float, float]:
        images = x[np.arange(batch) % len(x)]
        return _in_turns(lambda: original(images), lambda: fresh.seconds(images, 1)[0], settings.seconds, bound)

    bound = settings.min_throughput if row.same_runtime else None
    here, there = times(1)
    result.measured["original_milliseconds_per_image"] = 1000 * here
    result.measured["milliseconds_per_image"] = 1000 * there
    # The logits of pixels are large: no more images than were looked at.
    batch = THROUGHPUT_BATCH if next(iter(reference.logits.values())).ndim == 2 else min(THROUGHPUT_BATCH, len(x))
    here, there = times(batch, bound)
    result.measured["original_images_per_second"] = batch / here
    result.measured["images_per_second"] = batch / there
    if bound is not None:
        name = f"throughput in batches of {batch}, as a part of the original's"
        result.at_least(name, here / there, bound)


def _in_turns(first: Callable, second: Callable, seconds: float, bound: Any) -> tuple[float, float]:
    """Seconds of two pieces of work in turns; up to three times as often where the ratio misses its bound."""
    for _ in range(2):
        first(), second()
    times: tuple[list[float], list[float]] = ([], [])
    deadline, least = time.monotonic() + seconds, ROUNDS[0]
    for extension in range(3):
        while len(times[0]) < least or (time.monotonic() < deadline and len(times[0]) < (1 + extension) * ROUNDS[1]):
            times[0].append(first())
            times[1].append(second())
        here, there = map(_undisturbed, times)
        if bound is None or here / there >= bound:
            break
        deadline, least = time.monotonic() + seconds, len(times[0]) + ROUNDS[0]
    return here, there


def _undisturbed(times: list[float]) -> float:
    """The median of the faster half: what else the machine does only ever makes a piece of work slower."""
    return statistics.median(sorted(times)[: (len(times) + 1) // 2])


def _apart(logits: np.ndarray, expected: np.ndarray) -> float:
    return np.abs(logits - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny)


def _probabilities(outputs: dict[str, np.ndarray]) -> np.ndarray:
    """Of all classes, or of each pixel's class alone."""
    return outputs["probabilities"] if "probabilities" in outputs else outputs["confidences"]


def _softmax(logits: np.ndarray, outputs: dict[str, np.ndarray]) -> np.ndarray:
    """The probabilities that the outputs should tell."""
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = exponentials / exponentials.sum(-1, keepdims=True)
    return probabilities if "probabilities" in outputs else probabilities.max(-1)
