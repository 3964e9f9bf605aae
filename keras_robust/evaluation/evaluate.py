"""Evaluation of a model: accuracy under attack, by threat model and resolution, image by image."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust import models
from keras_robust.attacks import Attack
from keras_robust.attacks.suite import AttackSuite, is_differentiable
from keras_robust.attacks.versions import PLANS
from keras_robust.checks import check_bool, check_count, check_shard
from keras_robust.data import Source, resize_and_crop
from keras_robust.evaluation.assembly import assemble, assemble_set
from keras_robust.evaluation.attack_suites import attack_suite, check_attack, settings_of
from keras_robust.evaluation.fingerprint import fingerprint, probes
from keras_robust.evaluation.image_selection import is_imagenet, open_dataset, select
from keras_robust.evaluation.image_sets import corrupted, shifted
from keras_robust.evaluation.progress import EvaluationProgress, forward_passes
from keras_robust.evaluation.reporting import write
from keras_robust.evaluation.result_store import BatchResult, Grid, Images, ResultStore
from keras_robust.evaluation.results import Report
from keras_robust.evaluation.settings import OWN, EvaluationSettings, ImageSettings, ModelSettings, ThreatSettings
from keras_robust.evaluation.workers import EvaluationImages, Worker, channels_of, on_all_devices, run
from keras_robust.export.loading import load_model
from keras_robust.model_graph import check_logits, check_pixels
from keras_robust.models import multiply_adds, parameters
from keras_robust.precision import as_float32
from keras_robust.threat import ThreatModel
from keras_robust.versions import installed_versions, version

COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of terminals, in what Keras raises
PACKAGES = ("keras", "numpy", "pillow")  # besides the backend


def evaluate(
    model: Any,
    dataset: Source | str | PathLike,
    threats: Sequence[ThreatModel],
    resolutions: Sequence[int],
    attack: str | Sequence[Attack] = "standard",
    n_examples: int | None = None,
    seed: int = 0,
    out: str | PathLike | None = None,
    *,
    name: str | None = None,
    batch_size: int = 128,
    crop_pct: float | None = None,
    interpolation: str | None = None,
    class_names: Sequence[str] | str | PathLike | None = None,
    image_list: str | PathLike | None = None,
    skip_corrupt: bool = False,
    shard: tuple[int, int] | None = None,
    surrogate: keras.Model | None = None,
    corruptions: bool | str | PathLike = False,
    shifts: Mapping[str, Source | str | PathLike] | None = None,
    calibration: bool = False,
    eight_bit: bool = False,
    verbose: bool = True,
) -> Report | None:
    """Clean and robust accuracy of a model under every threat model at every resolution.

    The images are preprocessed for each resolution from their raw size (`kr.data.resize_and_crop`). The attacks run in
    turn, each on the images that are still classified correctly, so that the robust accuracy is the one against the
    best of them image by image. What counts as success is confirmed by the uncompiled model. All of it happens in
    float32 and inference mode, whatever precision the model was trained in. All images are read, and the model is
    tried at every resolution, before the first attack.

    With `out`, what is found is saved after every attack on every batch: the same call goes on where it was stopped,
    even killed, and gives the same report. On TensorFlow and JAX batches are spread over all devices.

    Args:
        model: from float images (batch, height, width, channels) in [0, 1] to logits (batch, classes): a Keras model,
            any other callable, or what `load_model` takes: a path, or the name of a preset or architecture.
        dataset: a source of raw images, e.g. `kr.data.photo_crops("val")`, or what `open_dataset` takes.
        threats: the threat models; several radii of a norm give a curve. One without a bound, as
            `ThreatModel("L2", None)`, gives all of it, by minimal-norm attacks: see `Report.curve`.
        resolutions: height and width of the images, in pixels.
        attack: a version of AutoAttack ("standard", "short", "plus", "rand", "fast"), or a sequence of attacks, each of
            which runs under every one of `threats` instead of its own. "fast" estimates what "standard" would give, at
            a fifth of its cost or less, and says with an interval how well: see `AttackResult.robust`. A model without
            gradients meets Square alone. Under a threat model without a bound, those of the sequence that look for the
            nearest point or, with a version, FMN, what suits the norm beside it, and APGD at each image's own radius.
        n_examples: number of images; all of them if not given.
        seed: of the choice of images and of AutoAttack's random draws.
        out: folder for `report.json`, `per_image.npz`, `report.md`, `report.html` and the state; nothing is written
            if not given.
        name: of the model, in the report.
        batch_size: images attacked at a time; best a multiple of 16.
        crop_pct, interpolation: of the preprocessing; if not given, those of the model's preset or artefact, or else
            0.875 and "bicubic". Which were used is printed, and in the report.
        class_names: names of the model's outputs, if it does not know them and the dataset has other classes; see
            `read_class_names`.
        image_list: file with the images to use, as RobustBench's 5,000 of ImageNet, one `<class>/<file>` per line.
        skip_corrupt: leave out images that cannot be read, and list them, instead of refusing the dataset.
        shard: (i, n): only the i-th of n parts, 1 <= i <= n. `merge` makes the report when all are done.
        surrogate: a differentiable model whose adversarial images are tried on a model without gradients.
        corruptions: classify the images under common corruptions, too: a folder in the layout of ImageNet-C,
            `<corruption>/<severity>/<class>/<file>`, or True to make them (`pip install 'keras-robust[corruptions]'`).
        shifts: other data sets to classify, by name, such as ImageNet-A, -R, -V2 or -Sketch: what `open_dataset` takes.
            Their classes are the model's or some of them, which then are the only answers; `n_examples` of each.
        calibration: keep how sure the model is, for the calibration error and the Brier score.
        eight_bit: classify the adversarial images rounded to 8 bits, too: what is left of each attack in a file.
        verbose: show the progress, with the accuracy so far and the time left.

    Returns:
        The `Report`, None for a shard.

    Raises:
        ValueError: an argument is not as described; the classes of model and dataset do not match; an image cannot be
            read; the model cannot take a resolution; `out` holds the state of an evaluation of other settings, images
            or weights.

    Example:
        >>> photos, threats = kr.data.photo_crops("val"), [kr.ThreatModel("Linf", 2 / 255), kr.ThreatModel("L2", 0.5)]
        >>> inputs = keras.Input((None, None, 3))
        >>> outputs = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(inputs))
        >>> report = kr.evaluation.evaluate(
        ...     keras.Model(inputs, outputs), photos, threats, [16, 24], "short", 8, out="mine", verbose=False
        ... )
        >>> report[threats[1], 24].robust_accuracy <= report[threats[1], 24].clean_accuracy
        True
    """
    threats, resolutions = _check_grid(threats, resolutions)
    shard = None if shard is None else check_shard("shard", shard)
    check_count("batch_size", batch_size)
    check_count("seed", seed, least=0)
    model = load_model(model)
    crop_pct, interpolation = preprocessing_of(model, crop_pct, interpolation, verbose)
    class_names = models.class_names(model) if class_names is None else class_names
    model = as_float32(model) if isinstance(model, keras.Model) else model
    check_attack(attack, model)
    for asked, value in (("calibration", calibration), ("eight_bit", eight_bit)):
        if value and isinstance(attack, str) and attack in PLANS:
            raise ValueError(
                f"{asked} must be False with attack={attack!r}, which leaves images out; it has no estimate of it."
            )
    calibration, eight_bit = check_bool("calibration", calibration), check_bool("eight_bit", eight_bit)
    if (corruptions or shifts) and channels_of(model) != 3:
        raise ValueError("corruptions and shifts are for models of images with three channels; this one takes one.")
    dataset = open_dataset(dataset)
    for resolution in resolutions:
        for threat in threats:
            threat.check_images((resolution, resolution, channels_of(model)))
    num_classes = _try_resolutions(model, resolutions, crop_pct, interpolation)
    selection = select(dataset, num_classes, n_examples, seed, class_names, image_list, skip_corrupt, verbose)
    batch_size = min(batch_size, len(selection))
    make_suites = partial(_suites, num_classes, threats, attack, batch_size, seed, surrogate)
    images = EvaluationImages(dataset, selection, crop_pct, interpolation, channels_of(model))
    image_sets = [
        shifted(
            name,
            source,
            num_classes,
            selection,
            crop_pct,
            interpolation,
            n_examples,
            seed,
            class_names,
            skip_corrupt,
            verbose,
        )
        for name, source in (shifts or {}).items()
    ]
    if corruptions:
        folder = None if corruptions is True else corruptions
        image_sets.insert(0, corrupted(folder, dataset, selection, resolutions, crop_pct, interpolation, seed))
    worker = Worker(make_suites(model), images, calibration=calibration, eight_bit=eight_bit)
    first = next(iter(worker.suites.values())).logits(probes(resolutions[0], channels_of(model)))
    settings = EvaluationSettings(
        keras_robust=version("keras-robust"),
        model=_model_settings(model, name, resolutions, first),
        images=ImageSettings(
            n_examples=len(selection),
            sha256=selection.sha256,
            list=None if image_list is None else Path(image_list).name,
            imagenet=is_imagenet(dataset),
            matched_by=selection.matched_by,
            crop_pct=crop_pct,
            interpolation=interpolation,
            note=dataset.note,
        ),
        resolutions=tuple(resolutions),
        threats=tuple(
            ThreatSettings(
                threat.norm,
                threat.bound,
                settings_of(suite.attacks, num_classes),
                None if suite.plan is None else asdict(suite.plan),
            )
            for threat, suite in worker.suites.items()
        ),
        attack=attack if isinstance(attack, str) else OWN,
        surrogate_sha256=None if surrogate is None else fingerprint(surrogate, first),
        seed=seed,
        batch_size=batch_size,
        backend=keras.backend.backend(),
        versions=installed_versions((*PACKAGES, keras.backend.backend())),
        image_sets=tuple(image_set.settings for image_set in image_sets),
        calibration=calibration,
        eight_bit=eight_bit,
    )
    store, grid, found = ResultStore(settings, out), Grid.of(settings), Images.of(selection)
    store.write_images(found.arrays())
    for image_set in image_sets:
        store.write_images(image_set.arrays(), image_set.name)
    tasks = _part(grid.batches, shard)
    workers = list(on_all_devices(worker, model, make_suites, len(tasks)))
    progress = _progress(worker.suites, grid, tasks, num_classes, len(workers), verbose)
    try:
        run(
            workers,
            [partial(Worker.attack, grid=grid, task=task, store=store, progress=progress) for task in tasks]
            + [
                partial(Worker.classify, image_set=image_set, grid=part, task=task, store=store, progress=progress)
                for image_set in image_sets
                for part in [grid.of_set(image_set.settings)]
                for task in _part(part.batches, shard)
            ],
        )
    finally:
        progress.close()
    if shard is not None:
        return None
    others = [
        result
        for image_set in image_sets
        for result in assemble_set(
            settings,
            image_set.settings,
            image_set.arrays(),
            {task: store.read_answers(image_set.name, *task) for task in grid.of_set(image_set.settings).batches},
        )
    ]
    report = assemble(settings, found, _finished(store, grid), others)
    if out is not None:
        write(report, out)
    return report


def _part(tasks: Sequence[tuple[int, int]], shard: tuple[int, int] | None) -> Sequence[tuple[int, int]]:
    return tasks if shard is None else tasks[shard[0] - 1 :: shard[1]]


def preprocessing_of(
    model: Any, crop_pct: float | None, interpolation: str | None, verbose: bool = False
) -> tuple[float, str]:
    """What is given, else what the model's preset or artefact says, else the published evaluation's: 0.875, bicubic."""
    known = getattr(model, "preprocessing", None)
    usual = (0.875, "bicubic") if known is None else (known.crop_pct, known.interpolation)
    if crop_pct is not None and interpolation is None and usual[1] == "none":
        raise ValueError(
            f"crop_pct must be None, or interpolation given with it, for a model whose images are cropped without a "
            f"resize; received {crop_pct!r}."
        )
    used = (usual[0] if crop_pct is None else crop_pct, usual[1] if interpolation is None else interpolation)
    if verbose:
        given = crop_pct is not None or interpolation is not None
        origin = "as given" if given else "the usual ones" if known is None else "those of the preset or artefact"
        print(f"preprocessing: crop_pct {used[0]:g}, {used[1]} ({origin})", file=sys.stderr)
    return used


def _suites(
    num_classes: int,
    threats: Sequence[ThreatModel],
    attack: str | Sequence[Attack],
    batch_size: int,
    seed: int,
    surrogate: Any,
    model: Any,
) -> dict[ThreatModel, AttackSuite]:
    """The attack suite of each threat model on one copy of the model."""
    return {threat: attack_suite(model, num_classes, threat, attack, batch_size, seed, surrogate) for threat in threats}


def _model_settings(model: Any, name: str | None, resolutions: Sequence[int], logits: np.ndarray) -> ModelSettings:
    return ModelSettings(
        name=str(name or getattr(model, "name", None) or getattr(model, "__name__", type(model).__name__)),
        sha256=fingerprint(model, logits),
        differentiable=is_differentiable(model),
        parameters=parameters(model) if isinstance(model, keras.Model) else None,
        multiply_adds={resolution: _cost(model, resolution) for resolution in resolutions},
    )


def _progress(
    suites: Mapping[ThreatModel, AttackSuite],
    grid: Grid,
    tasks: Sequence[tuple[int, int]],
    num_classes: int,
    n_workers: int,
    verbose: bool,
) -> EvaluationProgress:
    passes = {
        (resolution, threat, name): forward_passes(attack, num_classes) * suite.share(name)
        for resolution in grid.resolutions
        for threat, suite in suites.items()
        for name, attack in suite.attacks.items()
    }
    sampled = {cell for cell in passes if suites[cell[1]].share(cell[2]) < 1}
    n_examples = dict.fromkeys(grid.resolutions, 0)
    for resolution, batch in tasks:
        rows = grid.rows(batch)
        n_examples[resolution] += rows.stop - rows.start
    return EvaluationProgress(passes, n_examples, n_workers, verbose, sampled)


def _finished(store: ResultStore, grid: Grid) -> dict[tuple[int, int], BatchResult]:
    """All batches of an evaluation that has come to its end."""
    batches = {task: store.read(*task) for task in grid.batches}
    return {task: batch for task, batch in batches.items() if batch is not None}


def _check_grid(threats: Sequence[ThreatModel], resolutions: Sequence[int]) -> tuple[list[ThreatModel], list[int]]:
    for name, values in (("threats", threats), ("resolutions", resolutions)):
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ValueError(f"{name} must be a sequence of at least one; received {values!r}.")
        if len(set(values)) < len(values):
            raise ValueError(f"{name} must not repeat; received {values!r}.")
    for position, threat in enumerate(threats):
        if not isinstance(threat, ThreatModel):
            raise ValueError(f"threats[{position}] must be a ThreatModel; received {threat!r}.")
    return list(threats), [check_count("resolutions", resolution) for resolution in resolutions]


def _try_resolutions(model: Any, resolutions: Sequence[int], crop_pct: float, interpolation: str) -> int:
    """The number of classes, from grey images of all resolutions, which the model must take."""
    check_pixels(model)
    grey = np.full((8, 8, 3), 128, np.uint8)
    for resolution in resolutions:
        x = resize_and_crop(grey, resolution, crop_pct, interpolation)[None, ..., : channels_of(model)]
        x = x.astype(np.float32) / 255
        try:
            x = ops.convert_to_tensor(x)
            logits = model(x, training=False) if isinstance(model, keras.Layer) else model(x)
            shape = tuple(logits.shape)
        except Exception as error:  # whatever the framework raises where the graph does not fit
            message = " ".join(COLOURS.sub("", str(error)).split())[:300]
            raise ValueError(f"model cannot take images of {resolution} x {resolution} pixels: {message}") from error
        if len(shape) != 2 or shape[1] < 2:
            raise ValueError(f"model must return logits of shape (batch, classes), classes >= 2; received {shape}.")
        check_logits(model, np.asarray(ops.convert_to_numpy(logits), "float32"))
    return shape[1]


def _cost(model: Any, resolution: int) -> int | None:
    """Multiply-adds on one image; None where the graph of the model is not known."""
    try:
        # A `Sequential` has a graph, too.
        graph = keras.Model(model.inputs, model.outputs) if isinstance(model, keras.Sequential) else model
        return multiply_adds(graph, resolution)
    except Exception:  # no functional model, or a layer that cannot be counted
        return None
