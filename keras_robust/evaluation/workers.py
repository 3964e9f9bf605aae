"""What attacks the batches of an evaluation, one after the other, on one device or on several."""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

import keras
import numpy as np
from keras import ops

from keras_robust import losses
from keras_robust.data import amplified_difference, resize_and_crop
from keras_robust.evaluation.assembly import GALLERY, Plan, is_complete
from keras_robust.evaluation.progress import Progress
from keras_robust.evaluation.result_store import State


class Worker:
    """What attacks batches on one device: a copy of the model with the attacks compiled for it."""

    def __init__(self, model, attackers, dataset, selection, crop_pct, interpolation, device=None):
        self.model = model  # which the attackers hold by weak references
        self.attackers, self.dataset, self.selection, self.device = attackers, dataset, selection, device
        self.preprocessing = (crop_pct, interpolation)

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
                size[hit] = [
                    float(threat.perturbation_norm(x_adv[i : i + 1] - x[j : j + 1])[0]) for i, j in enumerate(hit)
                ]
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


def more_workers(model, attackers_on, worker, n_tasks):
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
            difference = amplified_difference(clean[None], adversarial[None])[0]
            pixels = np.stack([clean, adversarial, difference])
            done[f"{place}/picture/{position}"] = np.round(255 * pixels).astype(np.uint8)


def channels_of(model) -> int:
    """Channels of the images that a model takes: 3 where it does not say."""
    shape = getattr(model, "input_shape", None)
    return shape[-1] if isinstance(shape, tuple) and shape and shape[-1] else 3
