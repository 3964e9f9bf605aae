"""How robust is a model: accuracy under attack, by threat model and resolution, image by image."""

import platform
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from os import PathLike
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_robust import losses
from keras_robust.attacks import Attack
from keras_robust.checks import check_count
from keras_robust.data import Source, resize_and_crop
from keras_robust.evaluation.assembly import GALLERY, Plan, assemble, is_complete
from keras_robust.evaluation.attackers import attacker, check_attack, is_differentiable, settings_of
from keras_robust.evaluation.datasets import open_dataset
from keras_robust.evaluation.documents import write
from keras_robust.evaluation.formats import load_model
from keras_robust.evaluation.progress import Progress, forward_passes
from keras_robust.evaluation.report import Report
from keras_robust.evaluation.selection import is_imagenet, select
from keras_robust.evaluation.state import State, fingerprint
from keras_robust.models import multiply_adds, parameters
from keras_robust.precision import as_float32
from keras_robust.threat import ThreatModel

PACKAGES = ("keras", "numpy", "pillow", "tensorflow", "jax", "torch")


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
    batch_size: int = 100,
    crop_ratio: float = 0.875,
    interpolation: str = "bicubic",
    class_names: Sequence[str] | str | PathLike | None = None,
    image_list: str | PathLike | None = None,
    skip_corrupt: bool = False,
    shard: tuple[int, int] | None = None,
    surrogate: keras.Model | None = None,
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
        threats: the threat models; several radii of a norm give a curve.
        resolutions: sides in pixels.
        attack: a version of AutoAttack ("standard", "short", "plus", "rand"), or a sequence of attacks, each of which
            runs under every one of `threats` instead of its own. A model without gradients meets Square alone.
        n_examples: number of images; all of them if not given.
        seed: of the choice of images and of AutoAttack's random draws.
        out: folder for `report.json`, `per_image.npz`, `report.md`, `report.html` and the state; nothing is written
            if not given.
        name: of the model, in the report.
        batch_size: images attacked at a time.
        crop_ratio, interpolation: of the preprocessing; the published evaluation's 0.875 and "bicubic".
        class_names: names of the model's outputs, where the dataset has other classes; see `read_class_names`.
        image_list: file with the images to use, as RobustBench's 5,000 of ImageNet, one `<class>/<file>` per line.
        skip_corrupt: leave out images that cannot be read, and list them, instead of refusing the dataset.
        shard: (i, n): only the i-th of n parts, 1 <= i <= n. `merge` makes the report when all are done.
        surrogate: a differentiable model whose adversarial images are tried on a model without gradients.
        verbose: show the progress, with the accuracy so far and the time left.

    Returns:
        The `Report`, None for a shard.

    Raises:
        ValueError: an argument is not as described; the classes of model and dataset do not match; an image cannot be
            read; the model cannot take a resolution; `out` holds the state of an evaluation of other settings, images
            or weights.

    Example:
        >>> threats = [kr.ThreatModel("Linf", eps / 255) for eps in (2, 4, 8)] + [kr.ThreatModel("L2", 2)]
        >>> report = kr.evaluation.evaluate(model, "imagenet/val", threats, [224, 288], "short", 1000, out="runs/mine")
        >>> report[threats[1], 224].robust_accuracy, report[threats[1], 224].robust_interval
    """
    threats, resolutions = _check_grid(threats, resolutions)
    shard = _check_shard(shard)
    check_count("batch_size", batch_size)
    check_count("seed", seed, least=0)
    model = load_model(model)
    model = as_float32(model) if isinstance(model, keras.Model) else model
    check_attack(attack, threats, model)
    name = name or getattr(model, "name", None) or getattr(model, "__name__", type(model).__name__)
    dataset = open_dataset(dataset)
    num_classes = _try_resolutions(model, resolutions, crop_ratio, interpolation)
    selection = select(dataset, num_classes, n_examples, seed, class_names, image_list, skip_corrupt, verbose)
    batch_size = min(batch_size, len(selection))

    def attackers_on(each):
        return {threat: attacker(each, threat, attack, batch_size, seed, surrogate) for threat in threats}

    named = {threat: each.attacks(num_classes) for threat, each in attackers_on(model).items()}
    worker = Worker(model, attackers_on(model), dataset, selection, crop_ratio, interpolation)
    first = worker.images(resolutions[0], slice(0, batch_size))
    predictions = next(iter(worker.attackers.values())).logits(first).argmax(1)
    plan = Plan(
        threats=threats,
        resolutions=resolutions,
        attacks=[tuple(named[threat]) for threat in threats],
        n_examples=len(selection),
        batch_size=batch_size,
    )
    settings = {
        "keras_robust": metadata_version("keras-robust"),
        "model": {
            "name": name,
            "sha256": fingerprint(model, predictions),
            "differentiable": is_differentiable(model),
            "parameters": parameters(model) if isinstance(model, keras.Model) else None,
            "multiply_adds": {str(resolution): _cost(model, resolution) for resolution in resolutions},
        },
        "images": {
            "n_examples": len(selection),
            "sha256": selection.sha256,
            "list": None if image_list is None else Path(image_list).name,
            "imagenet": is_imagenet(dataset),
            "crop_ratio": crop_ratio,
            "interpolation": interpolation,
        },
        "resolutions": resolutions,
        "threats": [
            {"norm": threat.norm, "eps": threat.eps, "attacks": settings_of(named[threat])} for threat in threats
        ],
        "attack": attack if isinstance(attack, str) else "own",
        "surrogate_sha256": None if surrogate is None else fingerprint(surrogate, predictions),
        "seed": seed,
        "batch_size": batch_size,
        "backend": keras.backend.backend(),
        "versions": versions(),
    }
    state = State(settings, out)
    state.write_images(selection)
    tasks = plan.batches if shard is None else plan.batches[shard[0] - 1 :: shard[1]]
    passes = {
        (resolution, threat, attack): forward_passes(each, num_classes)
        for resolution in resolutions
        for threat in threats
        for attack, each in named[threat].items()
    }
    workers = [worker, *_more_workers(model, attackers_on, worker, len(tasks))]
    n_images = dict.fromkeys(resolutions, 0)
    for resolution, batch in tasks:
        n_images[resolution] += plan.where(batch).stop - plan.where(batch).start
    progress = Progress(passes, n_images, len(workers), verbose)
    try:
        run(workers, tasks, plan, state, progress)
    finally:
        progress.close()
    if shard is not None:
        return None
    report = assemble(plan, settings, state.read_images(), state.read)
    if out is not None:
        write(report, out)
    return report


class Worker:
    """What attacks batches on one device: a copy of the model with the attacks compiled for it."""

    def __init__(self, model, attackers, dataset, selection, crop_ratio, interpolation, device=None):
        self.model = model  # which the attackers hold by weak references
        self.attackers, self.dataset, self.selection, self.device = attackers, dataset, selection, device
        self.preprocessing = (crop_ratio, interpolation)

    def on(self, device, model, attackers):
        """The same on another device, with a copy of the model there."""
        return Worker(model, attackers, self.dataset, self.selection, *self.preprocessing, device)

    def images(self, resolution, where):
        """Images at a resolution, float32 (n, resolution, resolution, channels) in [0, 1].

        Raises:
            ValueError: the model takes grey images and there is one in colour.
        """
        images = np.stack(
            [
                resize_and_crop(self.dataset.image(index), resolution, *self.preprocessing)
                for index in self.selection.index[where]
            ]
        )
        if channels_of(self.model) == 1:
            coloured = np.flatnonzero((images != images[..., :1]).any((1, 2, 3)))
            if len(coloured):
                name = self.selection.names[where][coloured[0]]
                raise ValueError(f"the model takes images of one channel; {name} is in colour.")
            images = images[..., :1]
        return images.astype(np.float32) / 255

    def attack(self, plan, resolution, batch, state, progress):
        """All attacks of all threat models on one batch, as far as they are not done."""
        done = state.read(resolution, batch)
        finished = is_complete(plan, done)
        where, keep = plan.where(batch), batch == 0 and resolution == plan.resolutions[0]
        y = self.selection.labels[where].astype(np.int32)
        if not finished:
            x = self.images(resolution, where)
            first = next(iter(self.attackers.values()))
            logits = first.logits(x)
            targets = ops.convert_to_numpy(losses.targets(ops.convert_to_tensor(logits), ops.convert_to_tensor(y)))
            if "prediction" not in done:
                done["prediction"] = np.where(np.isnan(logits).any(1), -1, logits.argmax(1)).astype(np.int32)
                if keep:
                    done["doubts"] = np.array(list(first.doubts(x, y)), dtype=str)
        progress.clean(resolution, done["prediction"] == y)
        for place, (threat, attacks) in enumerate(zip(plan.threats, plan.attacks)):
            remaining = done["prediction"] == y
            for name in attacks:
                key = f"{place}/{name}"
                fresh = f"{key}/broken" not in done
                if fresh:
                    self._one_attack(threat, name, key, x, y, targets, where, remaining, place, keep, done)
                    state.write(resolution, batch, done)
                remaining = remaining & ~done[f"{key}/broken"]
                progress.done((resolution, threat, name), remaining, float(done[f"{key}/seconds"]), fresh)

    def _one_attack(self, threat, name, key, x, y, targets, where, remaining, place, keep, done):
        """One attack on the images `remaining` of a batch, into its arrays `done`; `keep` some as pictures."""
        started = time.monotonic()
        broken, evaluations, unconfirmed = np.zeros(len(x), bool), np.zeros(len(x), np.int32), 0
        size = done.setdefault(f"{place}/size", np.zeros(len(x), np.float32))
        answers = done.setdefault(f"{place}/adversarial_prediction", done["prediction"].copy())
        left = np.flatnonzero(remaining)
        if len(left):
            runner = self.attackers[threat]
            attempts = runner.attack(name, x[left], y[left], targets[left], where.start + left)
            hit = left[attempts.broken]
            broken[hit], evaluations[left], unconfirmed = True, attempts.evaluations, attempts.unconfirmed
            if len(hit):
                x_adv = attempts.x_adv[attempts.broken]
                answers[hit] = runner.logits(x_adv).argmax(1)
                size[hit] = [float(threat.size(x_adv[i : i + 1] - x[j : j + 1])[0]) for i, j in enumerate(hit)]
                if keep:
                    _keep_pictures(done, place, x, x_adv, hit)
        done[f"{key}/broken"], done[f"{key}/evaluations"] = broken, evaluations
        done[f"{key}/unconfirmed"] = np.int64(unconfirmed)
        done[f"{key}/seconds"] = np.float64(time.monotonic() - started)


def run(workers: Sequence[Worker], tasks: Iterable, plan: Plan, state: State, progress: Progress) -> None:
    """Let the workers take one batch after the other, each on its own device, until none is left."""
    queue: SimpleQueue = SimpleQueue()
    for task in tasks:
        queue.put(task)

    def work(worker):
        while True:
            try:
                task = queue.get_nowait()
            except Empty:
                return
            try:
                worker.attack(plan, *task, state, progress)
            except BaseException:
                while not queue.empty():  # the other workers end after their batch
                    queue.get_nowait()
                raise

    def work_on_device(worker):
        with keras.device(worker.device):
            work(worker)

    if len(workers) == 1:
        work(workers[0])
        return
    with ThreadPoolExecutor(len(workers)) as pool:
        for done in [pool.submit(work_on_device, worker) for worker in workers]:
            done.result()


def _more_workers(model, attackers_on, worker, n_tasks):
    """Workers for the other devices, which get a copy of the model each; the first one is given its device."""
    devices = devices_to_use()[:n_tasks]
    if len(devices) < 2 or not isinstance(model, keras.Model):
        return
    worker.device = devices[0]
    for device in devices[1:]:
        with keras.device(device):
            copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
            copy.set_weights(model.get_weights())
            yield worker.on(device, copy, attackers_on(copy))


def devices_to_use() -> list[str]:
    """All accelerators or, without one, all devices; on PyTorch the current one alone."""
    if keras.backend.backend() == "torch":
        return []
    devices = keras.distribution.list_devices()
    return [device for device in devices if not device.lower().startswith("cpu")] or devices


def _keep_pictures(done, place, x, x_adv, hit):
    """Add broken ones among the first images of the dataset to the gallery: clean, adversarial, difference."""
    for clean, adversarial, position in zip(x[hit], x_adv, hit):
        kept = [key for key in done if key.startswith(f"{place}/picture/")]
        if len(kept) < GALLERY:
            difference = adversarial - clean
            largest = max(float(np.abs(difference).max()), np.finfo(np.float32).tiny)
            pixels = np.stack([clean, adversarial, 0.5 + 0.5 * difference / largest])
            done[f"{place}/picture/{position}"] = np.round(255 * pixels).astype(np.uint8)


def _check_grid(threats, resolutions):
    for name, values in (("threats", threats), ("resolutions", resolutions)):
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ValueError(f"{name} must be a sequence of at least one; received {values!r}.")
        if len(set(values)) < len(values):
            raise ValueError(f"{name} must not repeat; received {values!r}.")
    for position, threat in enumerate(threats):
        if not isinstance(threat, ThreatModel):
            raise ValueError(f"threats[{position}] must be a ThreatModel; received {threat!r}.")
    return list(threats), [check_count("resolutions", resolution) for resolution in resolutions]


def _check_shard(shard):
    if shard is None:
        return None
    if not isinstance(shard, Sequence) or len(shard) != 2:
        raise ValueError(f"shard must be a pair (i, n); received {shard!r}.")
    i, n = (check_count("shard", value) for value in shard)
    if i > n:
        raise ValueError(f"shard must be (i, n) with 1 <= i <= n; received {shard!r}.")
    return i, n


def _try_resolutions(model, resolutions, crop_ratio, interpolation):
    """The number of classes, from grey images of all resolutions, which the model must take."""
    grey = np.full((8, 8, 3), 128, np.uint8)
    for resolution in resolutions:
        x = resize_and_crop(grey, resolution, crop_ratio, interpolation)[None, ..., : channels_of(model)]
        x = x.astype(np.float32) / 255
        try:
            x = ops.convert_to_tensor(x)
            logits = model(x, training=False) if isinstance(model, keras.Layer) else model(x)
            shape = tuple(logits.shape)
        except Exception as error:  # whatever the framework raises where the graph does not fit
            message = " ".join(str(error).split())[:300]
            raise ValueError(f"model cannot take images of {resolution} x {resolution} pixels: {message}") from error
        if len(shape) != 2 or shape[1] < 2:
            raise ValueError(f"model must return logits of shape (batch, classes), classes >= 2; received {shape}.")
    return shape[1]


def channels_of(model) -> int:
    """Channels of the images that a model takes: 3 where it does not say."""
    shape = getattr(model, "input_shape", None)
    return shape[-1] if isinstance(shape, tuple) and shape and shape[-1] else 3


def _cost(model, resolution):
    """Multiply-adds on one image; None where the graph of the model is not known."""
    try:
        # A `Sequential` has a graph, too.
        graph = keras.Model(model.inputs, model.outputs) if isinstance(model, keras.Sequential) else model
        return multiply_adds(graph, resolution)
    except Exception:  # no functional model, or a layer that cannot be counted
        return None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a figure, as far as they are installed."""
    backend = keras.backend.backend()
    used = [package for package in PACKAGES if package not in ("tensorflow", "jax", "torch") or package == backend]
    found = {package: metadata_version(package) for package in used}
    return {"python": platform.python_version(), **{name: version for name, version in found.items() if version}}


def metadata_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
