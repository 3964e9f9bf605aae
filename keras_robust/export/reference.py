"""Reference for an exported model: images, and the original's logits and adversarial images."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_robust import data
from keras_robust.attacks import APGD
from keras_robust.checks import check_count, check_number
from keras_robust.data import Source
from keras_robust.data.class_names import match_classes
from keras_robust.export.tasks import Task
from keras_robust.threat import ThreatModel

if TYPE_CHECKING:
    from keras_robust.export.metadata import InputMetadata


BATCH = 50
N_FILES = 12
ARRAYS = ("wide", "wide_logits", "file_pixels", "file_logits", "labels", "x_adv", "robust")
ENCODINGS = (("JPEG", 1), ("PNG", 1), ("JPEG", 6), ("JPEG", 3))  # format and EXIF orientation, in turn


@dataclass(frozen=True)
class VerificationSettings:
    """Settings of the verification of an exported model.

    Attributes:
        n_examples: images; if not given 100, or 8 for a model that classifies each of their pixels.
        n_iter: steps of the attack on the original, and on the artefact where it gives gradients.
        seconds: of timing, for one image at a time and for batches; up to three times as long where it is too slow.
        min_throughput: of the original's, in the formats that TensorFlow runs, as it does the original.
    """

    n_examples: int | None = None
    n_iter: int = 20
    seconds: float = 4.0
    min_throughput: float = 0.95

    def __post_init__(self) -> None:
        if self.n_examples is not None:
            check_count("n_examples", self.n_examples)
        check_count("n_iter", self.n_iter)
        check_number("seconds", self.seconds)
        check_number("min_throughput", self.min_throughput)


@dataclass(frozen=True)
class Reference:
    """Real images and what the original makes of them.

    Attributes:
        pixels: resolution -> uint8 (n, resolution, resolution, 3); the first resolution is that of the evaluation.
        logits: resolution -> float32 (n, classes) or (n, height, width, classes), of `pixels / 255`.
        wide, wide_logits: a few images that are wider than high, and their logits.
        files: encoded images, a list of bytes.
        file_pixels, file_logits: the files preprocessed by `kr.data`, uint8, and their logits.
        labels: int (n,), or of pixels (n, height, width): of the data set, or else the original's own answers.
        x_adv: float32 (n, resolution, resolution, 3): adversarial images for the original, at the first resolution.
        robust: booleans in the shape of `labels`: what the original still classifies correctly in `x_adv`.
    """

    pixels: dict[int, np.ndarray]
    logits: dict[int, np.ndarray]
    wide: np.ndarray
    wide_logits: np.ndarray
    files: list[bytes]
    file_pixels: np.ndarray
    file_logits: np.ndarray
    labels: np.ndarray
    x_adv: np.ndarray
    robust: np.ndarray

    @classmethod
    def of(
        cls,
        model: keras.Model,
        sizes: "InputMetadata",
        class_names: Sequence[str],
        threat: ThreatModel,
        settings: "VerificationSettings",
        task: Task,
        dataset: Any = None,
    ) -> "Reference":
        """Ask the original.

        Args:
            model: in float32.
            sizes: `InputMetadata`.
            class_names: of the model's outputs.
            threat: the threat model of the attack.
            settings: a `VerificationSettings`.
            task: of the model.
            dataset: a `kr.data` source; crops of the bundled photographs if not given, with the original's own answers
                as labels.
        """
        source = (data.photo_crops("val") if dataset is None else dataset).sample(
            settings.n_examples or task.n_examples
        )
        preprocessing = sizes.crop_pct, sizes.interpolation
        pixels = {side: _arrays(source, side, *preprocessing) for side in resolutions(sizes.resolution)}
        logits = {side: predict(model, images.astype(np.float32) / 255) for side, images in pixels.items()}
        x = pixels[sizes.resolution].astype(np.float32) / 255
        own = logits[sizes.resolution].argmax(-1)
        labels = own if dataset is None else outputs_of(source, class_names)[source.labels]
        x_adv = attacked(model, threat, x, labels, settings.n_iter)
        wide = pixels[max(pixels)][:4, : sizes.resolution]
        files = [_encode(source.image(i), *ENCODINGS[i % len(ENCODINGS)]) for i in range(min(N_FILES, len(source)))]
        decoded = np.stack([data.resize_and_crop(_decode(f), sizes.resolution, *preprocessing) for f in files])
        return cls(
            pixels=pixels,
            logits=logits,
            wide=wide,
            wide_logits=predict(model, wide.astype(np.float32) / 255),
            files=files,
            file_pixels=decoded,
            file_logits=predict(model, decoded.astype(np.float32) / 255),
            labels=labels,
            x_adv=x_adv,
            robust=predict(model, x_adv).argmax(-1) == labels,
        )

    def save(self, folder: Any) -> None:
        """Write to a folder, without pickle."""
        folder = Path(folder)
        arrays = {name: getattr(self, name) for name in ARRAYS}
        for name in ("pixels", "logits"):
            arrays |= {f"{name}/{side}": array for side, array in getattr(self, name).items()}
        np.savez(folder / "reference.npz", **arrays)
        for number, file in enumerate(self.files):
            (folder / f"{number}.image").write_bytes(file)

    @classmethod
    def load(cls, folder: Any) -> Any:
        """Read what `save` wrote."""
        folder = Path(folder)
        with np.load(folder / "reference.npz", allow_pickle=False) as arrays:
            plain = {name: arrays[name] for name in ARRAYS}
            for kind in ("pixels", "logits"):
                sides = [name.split("/")[1] for name in arrays if name.startswith(f"{kind}/")]
                plain[kind] = {int(side): arrays[f"{kind}/{side}"] for side in sides}
        files = [(folder / f"{number}.image").read_bytes() for number in range(len(plain["file_logits"]))]
        return cls(files=files, **plain)


def outputs_of(source: Any, class_names: Sequence[str]) -> np.ndarray:
    """The model's output for each class of a data set: by name, or by place where the model has none.

    Raises:
        ValueError: neither is possible.
    """
    numbered = list(class_names) == [str(number) for number in range(len(class_names))]
    aliases: list[tuple[str, ...]] | None = None if numbered else [(name,) for name in class_names]
    return match_classes(source.class_names, len(class_names), aliases).outputs


def resolutions(resolution: int) -> tuple[int, int]:
    """The evaluation's resolution and a larger one, which models of patches of 16 pixels take too if they take it."""
    return resolution, resolution + max(16, resolution // 112 * 16)


def predict(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Logits of float images, in batches, as numpy."""
    parts = [model(ops.convert_to_tensor(x[i : i + BATCH]), **_inference(model)) for i in range(0, len(x), BATCH)]
    return np.concatenate([ops.convert_to_numpy(part) for part in parts])


def attacked(model: keras.Model, threat: ThreatModel, x: np.ndarray, labels: np.ndarray, n_iter: int) -> np.ndarray:
    """Adversarial images for a model, by a short APGD on the cross-entropy."""
    attack = APGD(threat, n_iter=n_iter, returns="misclassified")
    return np.concatenate([attack(model, x[i : i + BATCH], labels[i : i + BATCH]) for i in range(0, len(x), BATCH)])


def _inference(model: keras.Model) -> dict[str, bool]:
    return {"training": False} if isinstance(model, keras.Layer) else {}


def _arrays(source: Source, side: int, crop_pct: float, interpolation: str) -> np.ndarray:
    images = (source.image(index) for index in range(len(source)))
    return np.stack([data.resize_and_crop(image, side, crop_pct, interpolation) for image in images])


def _encode(image: np.ndarray, form: str, orientation: int) -> bytes:
    from PIL import Image

    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    if form == "JPEG":
        Image.fromarray(image).save(file, form, quality=95, exif=exif)
    else:
        Image.fromarray(image).save(file, form)
    return file.getvalue()


def _decode(file: bytes) -> np.ndarray:
    import tempfile

    with tempfile.NamedTemporaryFile() as named:
        named.write(file)
        named.flush()
        return data.decode(named.name)
