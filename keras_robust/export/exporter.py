"""Exporter: from a trained model to an artefact that another team can serve."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_robust import models
from keras_robust.attacks.sanity_checks import withholding_layers
from keras_robust.batch_checks import check_logits_shape, check_size_of_logits, logits_shape
from keras_robust.checks import check_choice, check_count
from keras_robust.data import Source
from keras_robust.data.preprocessing import INTERPOLATIONS
from keras_robust.export import model_card
from keras_robust.export.formats import FORMATS, OTHER_FILE, Format, check_format
from keras_robust.export.metadata import ExportMetadata, InputMetadata, PresetMetadata, robustness_rows
from keras_robust.export.reference import Reference, VerificationSettings
from keras_robust.export.tasks import SEGMENTATION, TASKS, task_of
from keras_robust.export.verification import Verification
from keras_robust.export.verification import verify as check_artefact
from keras_robust.layers import ImageInput, PositionEmbedding
from keras_robust.model_graph import check_is_graph
from keras_robust.models.outputs import check_class_names
from keras_robust.precision import as_float32
from keras_robust.threat import ThreatModel
from keras_robust.versions import installed_versions

DEFAULT_THREAT = ThreatModel("Linf", 4 / 255)
PACKAGES = ("keras-robust", "keras", "tensorflow", "jax", "torch", "onnx", "tf2onnx", "pillow")
VERIFICATION = "verification.json"


class ExportError(RuntimeError):
    """An exported model is not what was evaluated; nothing was left at its path.

    Attributes:
        verification: all checks and measurements; None where the artefact could not be run at all.
    """

    def __init__(self, message: str, verification: Verification | None = None) -> None:
        super().__init__(message)
        self.verification = verification


def export(
    model: keras.Model,
    path: str | PathLike,
    format: str = "tf_saved_model",
    *,
    dtype: str = "float32",
    class_names: Sequence[str] | None = None,
    preset: str | None = None,
    threat: ThreatModel | None = None,
    report: Any = None,
    resolution: int | None = None,
    crop_pct: float | None = None,
    interpolation: str | None = None,
    dataset: Source | None = None,
    verify: bool | VerificationSettings = True,
    overwrite: bool = False,
    verbose: bool = True,
) -> Verification | None:
    """Export a model, and verify that the artefact gives what the model gives, under attack too.

    Formats, what can be called in each, and what it takes and gives:

    - "tf_saved_model", a folder. `serving_default`: uint8 images of any batch, height and width that the model allows,
      to `probabilities`, `classes`, `names`, `top5_classes`, `top5_names` and `top5_probabilities`. `logits`: float
      images in [0, 1] to `logits`, differentiable. `jpeg`: JPEG or PNG files of any size (up to 64 million pixels,
      checked before decoding) to the outputs of `serving_default`, with the evaluation preprocessing inside;
      `preprocess`: the same files to the `images` of `serving_default`.
    - "onnx", a file ending in .onnx, opset 18: float images in [0, 1] of any batch, height and width to `logits` and
      the outputs of `serving_default` but the names.
    - "litert", a file ending in .tflite: `serving_default` (without the names) and `logits`; in float32, or with
      float16 weights.
    - "keras", a file ending in .keras: as `model.save`, which needs Keras and this package to load.

    SavedModel, ONNX and LiteRT are written from TensorFlow: on the JAX and PyTorch backends in a subprocess that loads
    the weights there. Layers are put into float32 first, whatever the precision in training (`keras_robust.precision`).
    Class names, preset, threat model, evaluated robustness and versions are inside every format as `metadata.json`,
    `class_names.txt` and `model_card.md`.

    Verification loads the artefact in a fresh process in which neither this package nor Keras can be imported, compares
    logits on real images at two resolutions, probabilities and encoded files, measures size, time to load, latency
    and throughput in turns with the original, and attacks: APGD through the artefact's own gradients where it has
    some, and the original's adversarial images. The results are in `verification.json`, in the SavedModel's folder or
    next to the file. All is written aside and renamed at the end: a failure leaves what was there.

    A segmentation model, to logits (batch, height, width, classes), is exported alike; instead of probabilities, names
    and top-5 it answers `classes` and `confidences`, the probability of each pixel's class.

    Args:
        model: a `keras.Model` from float images (batch, height, width, 3) in [0, 1] to logits, of images or of each
            pixel; of an `AdversarialModel` its inner model is taken.
        path: of the artefact.
        format, dtype: see above.
        class_names: one string for each class; if not given, those that the model knows, or else "0", "1", ...
        preset: name of the published checkpoint that the weights are; gives the next five where they are not given.
        threat: a `ThreatModel`, of the training; attacks in verification run under it, or under Linf 4/255.
        report: the model's robustness: a `kr.evaluation.Report`, the path of its report.json, or rows of that.
        resolution: height and width of the images in evaluation, in pixels; a ViT's native one, or 224, if not given.
        crop_pct, interpolation: of the evaluation preprocessing; if not given, these and the resolution are those that
            the model knows (of a preset or an artefact), or else 0.875 and "bicubic".
        dataset: a `kr.data` source of images and labels to verify on; if not given, crops of the bundled photographs,
            where the original's own answers count as correct, as always of a segmentation model.
        verify: False leaves all checks out; a `kr.export.VerificationSettings` sets the number of images, steps of
            the attack, and what time it takes.
        overwrite: replace an artefact at `path`.
        verbose: print the table of checks.

    Returns:
        The `Verification`, or None without one.

    Raises:
        ValueError: an argument is not as described.
        ImportError: TensorFlow, or what else the format is written or run by, is not installed.
        ExportError: a check failed, or the artefact does not run; the message names the checks.

    Example:
        >>> names = ["aster", "daisy", "iris", "rose", "tulip"]
        >>> options = {"class_names": names, "threat": kr.ThreatModel("Linf", 4 / 255), "resolution": 32}
        >>> artefact = kr.export.export(model, "serving/flowers/1", verify=False, **options)
        >>> artefact = kr.export.export(model, "flowers.onnx", "onnx", verify=False, **options)
    """
    row = check_format(format, dtype)
    path = _check_path(path, row, format, overwrite)
    model = _check_model(model)
    task = _task(model)
    if task == SEGMENTATION and dataset is not None:
        raise ValueError(
            "dataset must not be given for a model that classifies each pixel: it is verified on its own answers; "
            f"received {dataset!r:.200}."
        )
    metadata = ExportMetadata(
        model=model.name,
        format=format,
        dtype=dtype,
        signatures=row.described_signatures(task),
        class_names=_class_names(class_names, model),
        input=_input_metadata(model, preset, resolution, crop_pct, interpolation),
        preset=_preset_metadata(preset),
        threat=_training_threat(preset, threat),
        evaluation=robustness_rows(report),
        versions={**installed_versions(PACKAGES), "backend": keras.backend.backend()},
        task=task,
        withholding_layers=withholding_layers(model),
    )
    if row.needs_tensorflow and importlib.util.find_spec("tensorflow") is None:
        raise ImportError(f"format {format!r} is written by TensorFlow: pip install 'keras-robust[export]'")
    settings = VerificationSettings() if verify is True else verify or None
    if not isinstance(settings, VerificationSettings | None):
        raise ValueError(f"verify must be True, False or a kr.export.VerificationSettings; received {verify!r}.")
    job = ExportJob(metadata, metadata.threat or DEFAULT_THREAT, settings)
    reference = None
    if settings is not None:
        reference = Reference.of(
            model, metadata.input, metadata.class_names, job.threat, settings, TASKS[task], dataset
        )
    return _write(model, path, job, reference, verbose)


@dataclass(frozen=True)
class ExportJob:
    """An artefact that is to be written, and its verification.

    Attributes:
        threat: under which verification attacks.
        settings: of the verification, None to leave it out.
    """

    metadata: ExportMetadata
    threat: ThreatModel
    settings: VerificationSettings | None


def _write(
    model: keras.Model, path: Path, job: ExportJob, reference: Reference | None, verbose: bool
) -> Verification | None:
    """Write and verify aside, and put the artefact in place if it passes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    here = not FORMATS[job.metadata.format].needs_tensorflow or keras.backend.backend() == "tensorflow"
    make = make_artefact if here else _make_under_tensorflow
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        aside = Path(folder) / path.name
        result = make(model, aside, job, reference)
        if result is not None and reference is not None:
            if verbose:
                print(result.table(), flush=True)
            if result.failed:
                raise ExportError(
                    f"{path} was not written: the exported model differs from the original in: "
                    f"{'; '.join(result.failed)}.\n{result.table()}",
                    result,
                )
            text = result.json(
                format=job.metadata.format,
                dtype=job.metadata.dtype,
                threat=str(job.threat),
                n_examples=len(reference.labels),
                versions=job.metadata.versions,
            )
            _verification_path(aside).write_text(text)
        _put(aside, path)
    return result


def make_artefact(model: keras.Model, path: Path, job: ExportJob, reference: Reference | None) -> Verification | None:
    """Write an artefact on the active backend and verify it; returns the `Verification`, None without a reference."""
    metadata = job.metadata
    row = FORMATS[metadata.format]
    row.write(model, path, metadata, metadata.dtype)
    if reference is None or job.settings is None:
        return None
    documents = model_card.documents(metadata)
    try:
        return check_artefact(
            path, metadata.format, row, metadata.dtype, model, job.threat, job.settings, reference, documents
        )
    except RuntimeError as error:
        raise ExportError(str(error)) from error


def _make_under_tensorflow(
    model: keras.Model, path: Path, job: ExportJob, reference: Reference | None
) -> Verification | None:
    """The same in a process whose backend is TensorFlow, where the weights are loaded from a .keras file."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        if reference is not None:
            reference.save(folder)
        request = {
            "path": str(path.resolve()),
            "metadata": job.metadata.to_json(),
            "threat": asdict(job.threat),
            "settings": job.settings and asdict(job.settings),
        }
        (Path(folder) / "request.json").write_text(json.dumps(request))
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": os.pathsep.join([root, *sys.path])}
        done = subprocess.run(
            [sys.executable, "-m", "keras_robust.export", folder], env=environment, capture_output=True, text=True
        )
        answer = Path(folder) / "answer.json"
        if done.returncode:
            raise ExportError(f"the export under TensorFlow failed: {done.stderr.strip()[-2000:]}")
        return Verification.of_json(answer.read_text()) if answer.exists() else None


def _check_path(path: str | PathLike, row: Format, format: str, overwrite: bool) -> Path:
    path = Path(path)
    if row.suffix and path.suffix != row.suffix:
        raise ValueError(f"path must end in {row.suffix} for format {format!r}; received {str(path)!r}.")
    if not row.suffix and OTHER_FILE.fullmatch(path.suffix):
        raise ValueError(f"path must be that of a folder for format {format!r}; received {str(path)!r}.")
    if path.exists() and not overwrite:
        raise ValueError(f"path must be new, or overwrite=True; there is already {str(path)!r}.")
    if path.is_dir() and (row.suffix or not (path / "saved_model.pb").is_file()):
        raise ValueError(f"path must not be a folder that holds anything but a SavedModel; received {str(path)!r}.")
    return path


def _check_model(model: Any) -> keras.Model:
    inner = getattr(model, "model", None)
    model = inner if isinstance(inner, keras.Model) else model
    if not isinstance(model, keras.Model):
        raise ValueError(f"model must be a keras.Model; received {type(model).__name__}.")
    check_is_graph(model)
    shape = model.input_shape
    if not isinstance(shape, tuple) or shape != (None, None, None, 3):
        raise ValueError(
            f"model must take images of any height and width, keras.Input((None, None, 3)); its input is {shape}."
        )
    return as_float32(model)


def _logits_shape(model: keras.Model) -> tuple:
    native = _native(model)
    return logits_shape(model, np.zeros((1, native, native, 3), np.float32))


def _task(model: keras.Model) -> str:
    shape = _logits_shape(model)
    check_logits_shape(shape, dense=True)
    if len(shape) == 4:
        check_size_of_logits(shape, model.input_shape)
    return task_of(shape)


def _preset_metadata(preset: str | None) -> PresetMetadata | None:
    if preset is None:
        return None
    published = models.preset(preset)
    return PresetMetadata(models.preset_names()[preset], published.source, published.licence)


def _training_threat(preset: str | None, threat: ThreatModel | None) -> ThreatModel | None:
    if threat is not None and not isinstance(threat, ThreatModel):
        raise ValueError(f"threat must be a ThreatModel; received {threat!r}.")
    known = None if preset is None else models.preset(preset).training_threat
    return threat if threat is not None or known is None else ThreatModel(*known)


def _input_metadata(
    model: keras.Model,
    preset: str | None,
    resolution: int | None,
    crop_pct: float | None,
    interpolation: str | None,
) -> InputMetadata:
    known = getattr(model, "preprocessing", None) if preset is None else models.preset(preset).preprocessing
    usual = known or models.Preprocessing(_native(model), 0.875, "bicubic")
    resolution = check_count("resolution", usual.resolution if resolution is None else resolution)
    crop_pct = usual.crop_pct if crop_pct is None else crop_pct
    if not isinstance(crop_pct, (int, float)) or not 0 < crop_pct <= 1:
        raise ValueError(f"crop_pct must be a number in (0, 1]; received {crop_pct!r}.")
    min_size, multiple_of = _sizes(model)
    if resolution < min_size or resolution % multiple_of:
        raise ValueError(
            f"resolution must be at least {min_size} and a multiple of {multiple_of} for this model; "
            f"received {resolution}."
        )
    return InputMetadata(
        min_size=min_size,
        multiple_of=multiple_of,
        max_size=max(1024, 2 * resolution),
        resolution=resolution,
        crop_pct=float(crop_pct),
        interpolation=check_choice("interpolation", interpolation or usual.interpolation, INTERPOLATIONS),
    )


def _native(model: keras.Model) -> int:
    """The height and width of the images that a ViT's position embedding is learned on; 224 for other models."""
    patch = _sizes(model)[1]
    return next((patch * layer.grid[0] for layer in model.layers if isinstance(layer, PositionEmbedding)), 224)


def _sizes(model: keras.Model) -> tuple[int, int]:
    """The smallest height and width that the model takes, and what they are multiples of."""
    checks = [layer for layer in model.layers if isinstance(layer, ImageInput)]
    return (checks[0].minimum, checks[0].multiple_of) if checks else (1, 1)


def _class_names(names: Sequence[str] | None, model: keras.Model) -> tuple[str, ...]:
    count = _logits_shape(model)[-1]
    names = models.class_names(model) if names is None else names
    return tuple(str(number) for number in range(count)) if names is None else check_class_names(names, count)


def _verification_path(path: Path) -> Path:
    return path / VERIFICATION if path.is_dir() else path.with_name(f"{path.name}.{VERIFICATION}")


def _put(aside: Path, path: Path) -> None:
    """Move what was written aside to its place."""
    if aside.is_file():
        # No moment at which a verification lies beside a file that it is not of.
        _verification_path(path).unlink(missing_ok=True)
        os.replace(aside, path)
        if _verification_path(aside).exists():
            os.replace(_verification_path(aside), _verification_path(path))
    elif path.is_dir():
        old = aside.with_name("old")
        os.rename(path, old)
        try:
            os.rename(aside, path)
        except OSError:
            os.rename(old, path)
            raise
        shutil.rmtree(old)
    else:
        os.rename(aside, path)
