"""Workers of an evaluation: each attacks one batch after the other on one device, with its copy of the model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

import keras
import numpy as np

from keras_robust.attacks.suite import AttackSuite, Stage, predictions
from keras_robust.data import Source, amplified_difference, resize_and_crop
from keras_robust.data.visualization import most_visible
from keras_robust.evaluation.calibration import certainty
from keras_robust.evaluation.image_selection import DECODERS, Selection
from keras_robust.evaluation.image_sets import ImageSet
from keras_robust.evaluation.progress import EvaluationProgress
from keras_robust.evaluation.result_store import BatchResult, CellBatch, Grid, ResultStore
from keras_robust.threat import ThreatModel

GALLERY = 6  # pictures per threat model


@dataclass(frozen=True)
class EvaluationImages:
    """The images of an evaluation, preprocessed when they are asked for.

    Attributes:
        channels: that the model takes, 1 or 3.
    """

    dataset: Source
    selection: Selection
    crop_pct: float
    interpolation: str
    channels: int

    def at(self, resolution: int, rows: slice) -> np.ndarray:
        """Images at a resolution, float32 (n, resolution, resolution, channels) in [0, 1].

        Raises:
            ValueError: the model takes grey images and there is one in colour.
        """

        def read(index: int) -> np.ndarray:
            return resize_and_crop(self.dataset.image(index), resolution, self.crop_pct, self.interpolation)

        with ThreadPoolExecutor(DECODERS) as pool:
            images = np.stack(list(pool.map(read, self.selection.index[rows])))
        if self.channels == 1:
            coloured = np.flatnonzero((images != images[..., :1]).any((1, 2, 3)))
            if len(coloured):
                name = self.selection.names[rows][coloured[0]]
                raise ValueError(f"the model takes images of one channel; {name} is in colour.")
            images = images[..., :1]
        return images.astype(np.float32) / 255


@dataclass(frozen=True)
class Worker:
    """One device with the attack suites of all threat models on its copy of the model; `device` None is the default."""

    suites: Mapping[ThreatModel, AttackSuite]
    images: EvaluationImages
    device: str | None = None
    calibration: bool = False
    eight_bit: bool = False

    def attack(self, grid: Grid, task: tuple[int, int], store: ResultStore, progress: EvaluationProgress) -> None:
        """All attacks of all threat models on one batch, as far as they are not done."""
        resolution, batch = task
        result, rows = store.read(resolution, batch), grid.rows(batch)
        y = self.images.selection.labels[rows].astype(np.int32)
        x = logits = None
        if result is None or not result.is_complete(grid):
            x = self.images.at(resolution, rows)
            suites = self.suites.values()
            # One that knows all that its version of AutoAttack warns of, where there is any.
            first = next((suite for suite in suites if suite.threat.is_bounded), next(iter(suites)))
            logits = first.logits(x)
            if result is None:
                result = BatchResult.of(predictions(logits), len(grid.threats))
                for cell in result.cells:
                    cell.extra |= self._extra(logits, y)
                if batch == 0 and resolution == grid.resolutions[0]:
                    result.warnings = tuple(first.warnings(x, y))
        progress.clean(resolution, result.prediction == y)
        for cell, threat, names in zip(result.cells, grid.threats, grid.attacks):
            earlier = list(cell.misclassified)
            if x is not None and logits is not None and len(earlier) < len(names):
                pictures = GALLERY if batch == 0 and resolution == grid.resolutions[0] else 0
                for stage in self.suites[threat].stages(
                    x, y, logits, rows.start, cell.misclassified, distance=cell.perturbation_norm, sample=cell.sample
                ):
                    self._record(cell, self.suites[threat], x, y, stage, pictures)
                    store.write(resolution, batch, result)
            remaining = result.prediction == y
            for name in names:
                remaining = remaining & ~cell.misclassified[name]
                progress.done((resolution, threat, name), remaining, cell.seconds[name], name not in earlier)

    def classify(
        self, image_set: ImageSet, grid: Grid, task: tuple[int, int], store: ResultStore, progress: EvaluationProgress
    ) -> None:
        """All versions of one batch of other images, as far as they are not done."""
        resolution, batch = task
        answers, suite = store.read_answers(image_set.name, *task), next(iter(self.suites.values()))
        for version in image_set.versions:
            if version not in answers:
                progress.classifying(f"{image_set.name} {version}", resolution, f"{batch + 1} of {grid.n_batches}")
                x = image_set.at(version, resolution, grid.rows(batch))
                answers[version] = image_set.answers(suite.logits(x))
                store.write_answers(image_set.name, *task, answers)

    def _extra(self, logits: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        """What was asked for besides, before any attack."""
        found: dict[str, np.ndarray] = {}
        if self.calibration:
            sure = certainty(logits, y)
            found |= {"certainty": sure, "adversarial_certainty": sure.copy()}
        return found | ({"rounded_prediction": predictions(logits)} if self.eight_bit else {})

    def _record(
        self, cell: CellBatch, suite: AttackSuite, x: np.ndarray, y: np.ndarray, stage: Stage, pictures: int
    ) -> None:
        """Add what an attack did to a batch under one threat model."""
        hit = np.flatnonzero(stage.misclassified)
        if len(hit):
            x_adv = stage.x_adv[hit]
            logits = suite.logits(x_adv)
            cell.adversarial_prediction[hit] = predictions(logits)
            if self.calibration:
                cell.extra["adversarial_certainty"][hit] = certainty(logits, y[hit])
            if self.eight_bit:
                cell.extra["rounded_prediction"][hit] = predictions(
                    suite.logits(np.round(255 * x_adv) / np.float32(255))
                )
            cell.perturbation_norm[hit] = suite.threat.geometry.measure(x_adv, x[hit])
            # Without a bound a later attack may have found a nearer image, to which the answer belongs.
            again = [number for number, place in enumerate(hit) if int(place) in cell.pictures]
            for number in [*again, *most_visible(x[hit], y[hit], max(0, pictures - len(cell.pictures)))]:
                pair = x[hit[number]][None], x_adv[number][None]
                pixels = np.concatenate([*pair, amplified_difference(*pair)])
                cell.pictures[int(hit[number])] = np.round(255 * pixels).astype(np.uint8)
        cell.misclassified[stage.name] = stage.misclassified
        cell.evaluations[stage.name] = stage.evaluations.astype(np.int32)
        cell.unconfirmed[stage.name], cell.seconds[stage.name] = stage.unconfirmed, stage.seconds
        cell.sample = stage.sample or cell.sample


def run(workers: Sequence[Worker], tasks: Sequence[Callable[[Worker], None]]) -> None:
    """Let the workers take one task after the other, each on its own device, until none is left."""
    queue: SimpleQueue[Callable[[Worker], None]] = SimpleQueue()
    for task in tasks:
        queue.put(task)

    def work(worker: Worker) -> None:
        while True:
            try:
                task = queue.get_nowait()
            except Empty:
                return
            try:
                task(worker)
            except BaseException:
                while not queue.empty():  # the other workers end after their batch
                    queue.get_nowait()
                raise

    def work_on_device(worker: Worker) -> None:
        with keras.device(worker.device):
            work(worker)

    if len(workers) == 1:
        work(workers[0])
        return
    with ThreadPoolExecutor(len(workers)) as pool:
        for done in [pool.submit(work_on_device, worker) for worker in workers]:
            done.result()


def on_all_devices(worker: Worker, model: Any, make_suites: Any, n_tasks: int) -> Iterator[Worker]:
    """The worker and, where there are several devices, one more on each of the others with a copy of the model.

    Args:
        worker: on the default device.
        model: of its suites.
        make_suites: function of a model that gives the suites of another worker.
        n_tasks: batches: there are no more workers than these.
    """
    devices = devices_to_use()[:n_tasks]
    if len(devices) < 2 or not isinstance(model, keras.Model):
        yield worker
        return
    yield replace(worker, device=devices[0])
    for device in devices[1:]:
        with keras.device(device):
            copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
            copy.set_weights(model.get_weights())
            yield replace(worker, suites=make_suites(copy), device=device)


def devices_to_use() -> list[str]:
    """All accelerators or, without one, all devices; on PyTorch the current one alone."""
    if keras.backend.backend() == "torch":
        return []
    devices = keras.distribution.list_devices()
    return [device for device in devices if not device.lower().startswith("cpu")] or devices


def channels_of(model: Any) -> int:
    """Channels of the images that a model takes: 3 where it does not say."""
    shape = getattr(model, "input_shape", None)
    return shape[-1] if isinstance(shape, tuple) and shape and shape[-1] else 3
