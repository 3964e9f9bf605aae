"""One training run, from a recipe to a model: restartable at any step."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import keras

from keras_robust import data
from keras_robust.backend.distribution import Distribution
from keras_robust.data.input_clock import InputClock
from keras_robust.files import write_text
from keras_robust.recipes import checkpoints, overrides
from keras_robust.recipes.board import Board
from keras_robust.recipes.build import BEST, build_model, build_trainer, seed_of
from keras_robust.recipes.callbacks import Between, InterruptedValidation, StopSignal, Timer
from keras_robust.recipes.datasets import TrainFeed, ValidationFeed
from keras_robust.recipes.guards import Preempted, TrainingBroken, check_finite, check_overfitting
from keras_robust.recipes.load_run import best_weights, save_model
from keras_robust.recipes.progress import Progress


def train(recipe, out, distribution=None, verbose=True):
    """Trains a recipe, or goes on with it: the same call continues an interrupted run from its last checkpoint.

    Args:
        recipe: a `Recipe`.
        out: folder of the run: `recipe.json`, `checkpoints/`, `logs/` (TensorBoard), `history.json`; at the end
            `model.keras`, `model_ema.keras` (averaged weights) and `best.keras` (the highest robust accuracy).
        distribution: from `kr.training.distribution.start`; None for a single device.
        verbose: whether to print progress.

    Returns:
        What the last validated epoch logged: a dict of floats.

    Raises:
        ValueError: `out` holds a run of another recipe, or the recipe does not fit the data.
        TrainingBroken: see `GuardConfig`.
        CheckpointError: a checkpoint could not be written.
        Preempted: SIGTERM came; a checkpoint is written. It is a SystemExit of code 75.

    Example:
        >>> kr.recipes.train(recipe, "runs/mine")
    """
    return Run(recipe, out, distribution or Distribution(), verbose).finish()


class Run:
    """The state of a run between its steps. See `train`."""

    def __init__(self, recipe, out, distribution, verbose=True):
        self.recipe, self.out, self.distribution = recipe, Path(out), distribution
        part = recipe.data
        fetch = {"data_dir": part.data_dir, "download": part.download}
        self.sources = {split: data.source(part.source, split, **fetch) for split in ("train", "val")}
        self.num_classes = recipe.model.num_classes or len(self.sources["train"].class_names)
        self.stream = sys.stdout if verbose and distribution.writes else None
        self.folder = checkpoints.Folder(
            self.out / "checkpoints", recipe.checkpoints.keep_last, recipe.checkpoints.keep_best
        )
        self.timer = Timer(recipe.checkpoints.every_steps, recipe.checkpoints.every_minutes)
        self.clock, self.stop = InputClock(), StopSignal(distribution)
        self.history, self.rollbacks, self.step, self.validated = [], 0, 0, 0
        self._kept_feed = (None, None)

    def finish(self):
        self._claim_folder()
        with self.stop:
            while True:
                try:
                    return self._train()
                except TrainingBroken as broken:
                    self._roll_back(broken)

    def _train(self):
        with self.distribution.scope():
            self._prepare()
            while self.validated < self.recipe.training.epochs:
                epoch = self.validated
                self._epoch(epoch)
                last = epoch + 1 == self.recipe.training.epochs
                if (epoch + 1) % self.recipe.evaluation.every == 0 or last:
                    self._validate()
                self.validated = epoch + 1
                self.save_now(score=self._score())
            self._write_models()
        self.board.close()
        return self.history[-1] if self.history else {}

    # Building, or going on.

    def _prepare(self):
        recipe, epochs = self.recipe, self.recipe.training.epochs
        found = self.folder.latest(self._accepts, self._warn)
        if len(set(self.distribution.gather(found[0].step if found else -1))) > 1:
            raise ValueError(
                f"out must be a folder that all {self.distribution.processes} processes see; they find different "
                f"checkpoints in {self.out}."
            )
        self.rollbacks = found[0].info["rollbacks"] if found else 0
        feed = self._feed(recipe.data.resolution_at(0))
        whole = recipe.training.steps_per_epoch or feed.steps_per_epoch
        self.steps_per_epoch = whole // recipe.training.accumulate * recipe.training.accumulate
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"training.accumulate must be at most the {whole} batches of an epoch; "
                f"received {recipe.training.accumulate}."
            )
        self.model = build_model(recipe, self.num_classes)
        self.trainer = build_trainer(recipe, self.model, self.steps_per_epoch, feed.augmentation, self.rollbacks)
        self.validation = ValidationFeed(
            self.sources["val"],
            recipe.evaluation.n_examples,
            recipe.evaluation.resolution or recipe.data.resolution_at(epochs),
            recipe.evaluation.batch_size or recipe.data.batch_size,
            self.num_classes,
            self.distribution,
        )
        self.progress = Progress(epochs, self.steps_per_epoch, recipe.data.batch_size, self.stream)
        self.board = Board(self.out / "logs" if self.distribution.writes else None)
        self.step, self.validated, self.history = 0, 0, []
        if found is None:
            self.progress.say(f"{recipe.name}: {epochs} epochs of {self.steps_per_epoch} steps")
            self.save_now()  # a folder without a checkpoint would start from other random weights after a rollback
        else:
            checkpoint, arrays = found
            checkpoints.restore(self.trainer, arrays, checkpoint.path)
            self.step, self.history = checkpoint.step, checkpoint.info["history"]
            self.validated = checkpoint.info["validated"]
            self.progress.say(f"{recipe.name}: goes on at step {self.step}, from {checkpoint.path.name}")
        self.board.start(self.step)

    def _feed(self, resolution):
        key = (resolution, self.rollbacks)
        if self._kept_feed[0] != key:
            seed = seed_of(self.recipe, self.rollbacks)
            source, shard = self.sources["train"], self.distribution.shard
            self._kept_feed = key, TrainFeed(self.recipe, source, resolution, self.num_classes, seed, shard)
        return self._kept_feed[1]

    def _claim_folder(self):
        """Writes the recipe into the folder, and refuses one that holds another."""
        path = self.out / "recipe.json"
        if path.exists():
            there = overrides.from_json(path.read_text())
            if overrides.fingerprint(there) != overrides.fingerprint(self.recipe):
                raise ValueError(
                    f"out must be a new folder, or that of a run of the same recipe; {self.out} holds "
                    f"another: {', '.join(overrides.differences(there, self.recipe))}."
                )
        if self.distribution.writes:
            self.out.mkdir(parents=True, exist_ok=True)
            write_text(path, overrides.to_json(self.recipe))

    def _accepts(self, checkpoint):
        if checkpoint.info.get("fingerprint") == overrides.fingerprint(self.recipe):
            return True
        self._warn(f"{checkpoint.path} is of another recipe and is passed over.")
        return False

    def _warn(self, message):
        if self.stream:
            print(f"warning: {message}", file=sys.stderr, flush=True)

    # Training and validation.

    def _epoch(self, epoch):
        end = (epoch + 1) * self.steps_per_epoch
        if self.step >= end:
            return
        start = self.step
        feed = self._feed(self.recipe.data.resolution_at(epoch))
        if feed.augmentation is not None and feed.augmentation.resolution != self.trainer.augmentation.resolution:
            self.trainer.augmentation = feed.augmentation
            self.trainer.make_train_function(force=True)
        self.progress.restart(start)
        self.clock.reset()
        logs = self.trainer.fit(
            self.distribution.batches(self.clock.timed(feed.batches(start))),
            epochs=epoch + 1,
            initial_epoch=epoch,
            steps_per_epoch=end - start,
            shuffle=False,
            verbose=0,
            callbacks=[Between(self, start)],
        ).history
        self.step = end
        self.progress.measure(end)
        self.history.append({"epoch": epoch + 1, "step": end, **{name: float(v[-1]) for name, v in logs.items()}})
        if self.recipe.guard.action != "off":
            check_finite(self.history[-1], end)
        if self.due_for_checkpoint(end) or self.stop.received:
            self.save_now()

    def _validate(self):
        entry, found = self.history[-1], {}
        options = {"verbose": 0, "return_dict": True, "callbacks": [InterruptedValidation(self)]}
        batches = self.distribution.batches(self.validation)
        for name, context in (("val", nullcontext), ("ema", self.trainer.averaged_weights)):
            if name == "ema" and not self.trainer.weight_averages:
                continue
            with context():
                logs = self.trainer.evaluate(batches, steps=len(self.validation), **options)
            found |= {f"{name}_{metric}": float(value) for metric, value in logs.items()}
            if self.stop.received:  # half a validation is none: it is done again when the run goes on
                self.save_now()
                raise Preempted
        entry |= found
        self.progress.epoch(entry["epoch"], entry)
        self._log_epoch(entry)
        if self.recipe.guard.action != "off" and self.recipe.attack.kind != "none":
            validated = [epoch for epoch in self.history if "val_robust_accuracy" in epoch]
            check_overfitting(validated, self.recipe.guard.collapse, len(self.validation.images))

    def _score(self):
        entry = self.history[-1]
        clean = self.recipe.attack.kind == "none"
        names = ("val_accuracy", "ema_accuracy") if clean else ("val_robust_accuracy", "ema_robust_accuracy")
        return max((entry[name] for name in names if name in entry), default=None)

    # Logs.

    def input_wait(self):
        """The share of the time since the epoch's start that was spent waiting for input; None where unknown."""
        seconds = self.progress.seconds_per_step()
        if not self.clock.batches or not seconds:
            return None
        return min(self.clock.waited / (self.clock.batches * seconds), 1.0)

    def log_step(self, step, values):
        seconds = self.progress.seconds_per_step()
        rate = {"images_per_second": self.recipe.data.batch_size / seconds} if seconds else {}
        wait = self.input_wait()
        waits = {} if wait is None else {"time/input_wait_share": wait}
        learning_rate = float(self.trainer.optimizer.learning_rate)
        self.board.scalars("train", {**values, "learning_rate": learning_rate, **rate, **waits}, step)

    def _log_epoch(self, entry):
        """Curves of validation, pictures of the attack, and what part of a step the attack takes."""
        if not self.distribution.writes:
            return
        step = entry["step"]
        for prefix, run in (("val_", "validation"), ("ema_", "validation_averaged")):
            names = [name for name in entry if name.startswith(prefix)]
            self.board.scalars(run, {name.removeprefix(prefix): entry[name] for name in names}, step)
        self.board.scalars("epochs", {n: v for n, v in entry.items() if not n.startswith(("val_", "ema_"))}, step)
        if self.distribution.processes == 1:
            speed = self.recipe.data.batch_size, self.progress.seconds_per_step(), self.input_wait()
            self.board.attack(self.trainer, self.validation, step, *speed)
        write_text(self.out / "history.json", json.dumps(self.history, indent=1) + "\n")

    # Checkpoints.

    def due_for_checkpoint(self, step):
        return self.timer.due(step, self.distribution)

    def save_now(self, score=None):
        """Writes a checkpoint of the present state; all processes call it, one writes, the others wait for it."""
        arrays = checkpoints.capture(self.trainer)
        if self.recipe.guard.action != "off" and checkpoints.not_finite(arrays):
            raise TrainingBroken(
                f"weights are not finite at step {self.step}, first {checkpoints.not_finite(arrays)[0]}; no checkpoint "
                "was written of them. guard.action=rollback goes on from the last good one."
            )
        info = {
            "fingerprint": overrides.fingerprint(self.recipe),
            "rollbacks": self.rollbacks,
            "history": self.history,
            "validated": self.validated,
            "score": score,
            "seed": seed_of(self.recipe, self.rollbacks),
            "backend": keras.backend.backend(),
        }
        if self.distribution.writes:
            self.folder.save(arrays, self.step, info)
        self.distribution.gather(0)
        self.timer.restart()

    def _roll_back(self, broken):
        guard = self.recipe.guard
        good = [checkpoint for checkpoint in self.folder.readable(self._warn) if self._is_good(checkpoint)]
        if guard.action != "rollback" or self.rollbacks >= guard.rollbacks or not good:
            raise broken
        checkpoint = good[0]
        arrays = checkpoints.read(checkpoint.path)
        self.progress.say(f"broken: {broken}")
        self.progress.say(
            f"rolling back to step {checkpoint.step} with half the learning rate and other random draws "
            f"({self.rollbacks + 1} of at most {guard.rollbacks} times)"
        )
        info = {**checkpoint.info, "rollbacks": self.rollbacks + 1}
        if self.distribution.writes:
            checkpoints.write(checkpoint.path, arrays, checkpoint.step, info)
            for later in self.folder.readable():
                if later.step > checkpoint.step:
                    later.path.unlink(missing_ok=True)
        self.distribution.gather(0)

    def _is_good(self, checkpoint):
        """Whether robust accuracy had not collapsed when it was written, as far as anybody measured."""
        robust = [e["val_robust_accuracy"] for e in checkpoint.info["history"] if "val_robust_accuracy" in e]
        best = max((e.get("val_robust_accuracy", 0.0) for e in self.history), default=0.0)
        healthy = not robust or robust[-1] >= self.recipe.guard.collapse * best
        return self._accepts(checkpoint) and healthy

    # The end.

    def _write_models(self):
        """Saves the models; all processes set the weights, one writes."""
        save = save_model if self.distribution.writes else lambda model, path: None
        save(self.model, self.out / "model.keras")
        if self.trainer.weight_averages:
            with self.trainer.averaged_weights():
                save(self.model, self.out / "model_ema.keras")
        best = self.folder.best()
        if best is None:
            return
        now = checkpoints.capture(self.trainer)
        checkpoints.restore(self.trainer, checkpoints.read(best.path), best.path)
        with best_weights(self.trainer, best):
            save(self.model, self.out / BEST)
        checkpoints.restore(self.trainer, now)
        self.progress.say(f"best: {BEST}, {best.info['score']:.1%} at step {best.step}; all in {self.out}")
