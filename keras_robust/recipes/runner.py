"""Runner of a recipe: one training run, from a recipe to a model, restartable at any step."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

import keras

from keras_robust import data, models
from keras_robust.backend.distribution import Distribution
from keras_robust.compilation_cache import keep_compiled
from keras_robust.data.input_clock import InputClock
from keras_robust.data.shared_images import shared_images
from keras_robust.data.sources.splits import HELD_OUT, WHOLE_TRAIN
from keras_robust.files import write_text
from keras_robust.recipes import checkpoints, cost, guards
from keras_robust.recipes.attack_share import attack_share
from keras_robust.recipes.build import BEST, build_model, build_trainer, seed_of
from keras_robust.recipes.callbacks import BatchForwarder, CheckpointTimer, StepWatcher, StopSignal, ValidationStop
from keras_robust.recipes.checkpoints import Checkpoint
from keras_robust.recipes.config import Recipe
from keras_robust.recipes.datasets import TrainFeed, ValidationFeed
from keras_robust.recipes.guards import Preempted, TrainingBroken, check_finite, check_overfitting
from keras_robust.recipes.progress import TrainingProgress
from keras_robust.recipes.run_models import CLASS_NAMES, best_weights, class_names_of_run, save_model
from keras_robust.training.tensorboard import PICTURE, TensorBoardWriter

SHOWN = 8  # images in the picture of the attack


def train(
    recipe: Recipe,
    out: str | PathLike,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    distribution: Distribution | None = None,
    verbose: bool = True,
) -> dict[str, float]:
    """Trains a recipe, or goes on with it: the same call continues an interrupted run from its last checkpoint.

    On JAX compiled programs are kept on disk for the next start, as `keras_robust.compilation_cache` says.

    Args:
        recipe: a `Recipe`.
        out: folder of the run: `recipe.json`, `checkpoints/`, `logs/` (TensorBoard), `history.json`; at the end
            `model.keras`, `model_ema.keras` (averaged weights) and `best.keras` (the highest robust accuracy).
        callbacks: Keras callbacks, for which the run is one training of the `AdversarialModel`: W&B, MLflow,
            `EarlyStopping("val_robust_accuracy", mode="max")`. Epochs end after their validation, whose figures are in
            the logs as `val_...` and, of the averaged weights, `ema_...`. A run that one of them stops is at its end.
            They start anew when an interrupted run goes on.
        distribution: from `kr.training.distribution.start`; None for a single device.
        verbose: whether to print progress.

    Returns:
        What the last epoch logged.

    Raises:
        ValueError: `out` holds a run of another recipe, or the recipe does not fit the data.
        TrainingBroken: see `GuardConfig`.
        CheckpointError: a checkpoint could not be written.
        Preempted: SIGTERM came; a checkpoint is written. It is a SystemExit of code 75.

    Example:
        >>> recipe = kr.recipes.Recipe("mine")
        >>> kr.recipes.train(recipe, "runs/mine")  # hours  # doctest: +SKIP
        {'loss': 1.9, 'accuracy': 0.31, 'val_accuracy': 0.42, 'val_robust_accuracy': 0.27}  # takes hours
    """
    if keras.backend.backend() == "jax":
        keep_compiled()
    return TrainingRun(recipe, out, callbacks, distribution or Distribution(), verbose).finish()


class TrainingRun:
    """One run between its steps. See `train`."""

    def __init__(
        self,
        recipe: Recipe,
        out: str | PathLike,
        callbacks: Sequence[keras.callbacks.Callback],
        distribution: Distribution,
        verbose: bool = True,
    ) -> None:
        self.recipe, self.out, self.distribution = recipe, Path(out), distribution
        part = recipe.data
        fetch: dict[str, Any] = {"data_dir": part.data_dir, "download": part.download}
        if part.validation is None:
            self.sources = {split: data.source(part.source, split, **fetch) for split in ("train", "val")}
        else:
            train, val = (part.source, WHOLE_TRAIN), (part.validation, HELD_OUT)
            self.sources = {"train": data.source(*train, **fetch), "val": data.source(*val, **fetch)}
        self.class_names = self.sources["train"].class_names
        if self.class_names != (held_out := self.sources["val"].class_names):
            different = sorted({*self.class_names} ^ {*held_out}) or ["their order"]
            raise ValueError(
                f"data.source must have the same classes for training and validation; {part.source} and "
                f"{part.validation or 'its validation part'} differ in {', '.join(different[:10])}."
            )
        self.num_classes = recipe.model.num_classes or len(self.class_names)
        self.stream = sys.stdout if verbose and distribution.writes else None
        self.folder = checkpoints.CheckpointFolder(
            self.out / "checkpoints", recipe.checkpoints.keep_last, recipe.checkpoints.keep_best
        )
        self.timer = CheckpointTimer(recipe.checkpoints.every_steps, recipe.checkpoints.every_minutes, distribution)
        self.clock, self.stop = InputClock(), StopSignal(distribution)
        self.history: list[dict[str, float]] = []
        self.rollbacks = self.step = self.validated = 0
        self.stopped = False  # by a callback
        self._callbacks, self._began = list(callbacks), False
        self._callback_list: Any = None  # a Keras CallbackList, which has no types
        self._kept_feed: tuple[Any, TrainFeed | None] = (None, None)
        self._attack_share: float | None = None
        self.board: TensorBoardWriter | None = None

    def finish(self) -> dict[str, float]:
        self._claim_folder()
        with self.stop:
            while True:
                try:
                    return self._train()
                except TrainingBroken as broken:
                    self._roll_back(broken)
                finally:
                    self._close_feed()
                    if self.board is not None:
                        self.board.close()

    def _train(self) -> dict[str, float]:
        epochs = self.recipe.training.epochs
        with self.distribution.scope():
            self._prepare()
            while self.validated < epochs and not self.stopped:
                epoch = self.validated
                self._epoch(epoch)
                last = epoch + 1 == epochs
                if (epoch + 1) % self.recipe.evaluation.every == 0 or last or self.trainer.stop_training:
                    self._validate()
                self.validated = epoch + 1
                self.save_now(self.step, score=self._score())
                self._end_epoch(epoch)
            if self._callback_list is not None:
                self._callback_list.on_train_end(self.history[-1] if self.history else None)
            self._write_models()
        self.progress.close()
        return self.history[-1] if self.history else {}

    # Building, or going on.

    def _prepare(self) -> None:
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
        if self.num_classes == len(self.class_names):
            if "head" not in recipe.start.new:
                guards.check_classes(models.class_names(self.model), self.class_names, recipe.model.name)
                guards.check_classes(class_names_of_run(recipe.start.weights), self.class_names, "start.weights")
            models.set_class_names(self.model, self.class_names)
        self.trainer = build_trainer(recipe, self.model, self.steps_per_epoch, feed.augmentation, self.rollbacks)
        self.validation = ValidationFeed(
            self.sources["val"],
            recipe.evaluation.n_examples,
            recipe.evaluation.resolution or recipe.data.resolution_at(epochs),
            recipe.evaluation.batch_size or recipe.data.batch_size,
            self.num_classes,
            self.distribution,
        )
        self.progress = TrainingProgress(epochs, self.steps_per_epoch, recipe.data.batch_size, self.stream)
        self.step, self.validated, self.history, self.stopped = 0, 0, [], False
        self.metrics: dict[str, Any] = {}
        if found is None:
            self.progress.say(f"{recipe.name}: {epochs} epochs of {self.steps_per_epoch} steps")
            if self.stream:
                self.progress.say(cost.describe(recipe, len(self.sources["train"]), self.num_classes))
            self.save_now(0)  # a folder without a checkpoint would start from other random weights after a rollback
            self._look_at_start()
        else:
            checkpoint, arrays = found
            checkpoints.restore(self.trainer, arrays, checkpoint.path)
            self.step, self.history = checkpoint.step, checkpoint.info["history"]
            self.validated, self.stopped = checkpoint.info["validated"], checkpoint.info["stopped"]
            self.metrics = checkpoint.info["metrics"]
            self.progress.say(f"{recipe.name}: goes on at step {self.step}, from {checkpoint.path.name}")
        self.board = self._open_board()
        self._begin_callbacks()

    def _look_at_start(self) -> None:
        """Says what shows before the first step: wrong pixels or classes, and images on both sides."""
        if self.stream:
            held_out = self.sources["val"].sample(self.recipe.evaluation.n_examples)
            self._warn(guards.of_shared_images(shared_images(self.sources["train"], held_out), len(held_out)))
        if self.recipe.start.weights is None and not models.is_foreign(self.recipe.model.name):
            return
        logs = self._evaluate()
        self._end_if_told()
        self.progress.say(f"before training: clean {logs['accuracy']:.1%}, robust {logs['robust_accuracy']:.1%}")
        self._warn(guards.of_start(logs["accuracy"], self.validation))

    def _evaluate(self) -> dict[str, float]:
        """Clean and robust accuracy of the present weights on the validation images."""
        options: Any = {"verbose": 0, "return_dict": True, "callbacks": [ValidationStop(self.stop)]}
        batches = self.distribution.batches(self.validation)
        logs: Any = self.trainer.evaluate(batches, steps=len(self.validation), **options)
        logs["loss"] *= self.validation.padded
        return {metric: float(value) for metric, value in logs.items()}

    def _end_if_told(self) -> None:
        """Ends the run after a validation that was cut short: half of one is none, and is done when the run goes on."""
        if self.stop.received:
            self.save_now(self.step)
            raise Preempted

    def _open_board(self) -> TensorBoardWriter | None:
        """What writes for TensorBoard, in the one process that writes; None where tensorboard is not installed."""
        if not self.distribution.writes:
            return None
        try:
            return TensorBoardWriter(self.out / "logs", self.step)
        except ImportError:
            return None

    def _begin_callbacks(self) -> None:
        if not self._callbacks:
            return
        if self._callback_list is None:
            self._callback_list = keras.callbacks.CallbackList(
                self._callbacks, model=self.trainer, epochs=self.recipe.training.epochs, steps=self.steps_per_epoch
            )
        else:  # after a rollback, with a new trainer
            self._callback_list.set_model(self.trainer)
        if not self._began:
            self._began = True
            self._callback_list.on_train_begin()

    def _feed(self, resolution: int) -> TrainFeed:
        key = (resolution, self.rollbacks)
        kept, feed = self._kept_feed
        if feed is None or kept != key:
            self._close_feed()
            seed = seed_of(self.recipe, self.rollbacks)
            source = self.sources["train"]
            feed = TrainFeed(self.recipe, source, resolution, self.num_classes, seed, self.distribution)
            self._kept_feed = key, feed
        return feed

    def _close_feed(self) -> None:
        """Ends the processes that read for the feed of another resolution, or at the end."""
        if self._kept_feed[1] is not None:
            self._kept_feed[1].close()

    def _claim_folder(self) -> None:
        """Writes the recipe into the folder, and refuses one that holds another."""
        path = self.out / "recipe.json"
        if path.exists():
            there = Recipe.load(path)
            if there.fingerprint() != self.recipe.fingerprint():
                raise ValueError(
                    f"out must be a new folder, or that of a run of the same recipe; {self.out} holds "
                    f"another: {', '.join(there.differences(self.recipe))}."
                )
        known = class_names_of_run(self.out)
        if known not in (None, self.class_names):
            raise ValueError(
                f"{self.out} holds a run on other classes: {', '.join(known[:10])}; now there are "
                f"{', '.join(self.class_names[:10])}."
            )
        if self.distribution.writes:
            self.out.mkdir(parents=True, exist_ok=True)
            write_text(path, self.recipe.to_json())
            write_text(self.out / CLASS_NAMES, json.dumps(self.class_names))

    def _accepts(self, checkpoint: Checkpoint) -> bool:
        if checkpoint.info.get("fingerprint") == self.recipe.fingerprint():
            return True
        self._warn(f"{checkpoint.path} is of another recipe and is passed over.")
        return False

    def _warn(self, message: str | None) -> None:
        if message is not None and self.stream:
            print(f"warning: {message}", file=sys.stderr, flush=True)

    # Training and validation.

    def _epoch(self, epoch: int) -> None:
        end = (epoch + 1) * self.steps_per_epoch
        if self.step >= end:
            return
        start = self.step
        feed = self._feed(self.recipe.data.resolution_at(epoch))
        if feed.augmentation is not None and feed.augmentation.resolution != self.trainer.augmentation.resolution:  # type: ignore[union-attr]
            self.trainer.augmentation = feed.augmentation
            self.trainer.make_train_function(force=True)
        self.progress.restart(start)
        self.clock.reset()
        first = start - epoch * self.steps_per_epoch
        watcher = StepWatcher(
            start,
            end,
            first,
            self.metrics if first else {},
            progress=self.progress,
            clock=self.clock,
            timer=self.timer,
            stop=self.stop,
            guarded=self._guarded,
            on_log=self._log_step,
            save=self.save_now,
        )
        watching: list[keras.callbacks.Callback] = [watcher]
        if self._callback_list is not None:
            self._callback_list.on_epoch_begin(epoch)
            watching.append(BatchForwarder(self._callback_list, first))
        try:
            logs = self.trainer.fit(
                self.distribution.batches(self.clock.timed(feed.batches(start, end - start))),
                epochs=epoch + 1,
                initial_epoch=epoch,
                steps_per_epoch=end - start,
                shuffle=False,
                verbose=0,
                callbacks=watching,
            ).history
        except Exception:
            if self.distribution.processes == 1:  # of several, the others would not come to save
                watcher.on_failure()
            raise
        self.step = watcher.step
        self.progress.measure(self.step)
        entry = {name: float(values[-1]) for name, values in logs.items()}
        self.history.append({"epoch": epoch + 1, "step": self.step, **entry})
        if self._guarded:
            check_finite(self.history[-1], self.step)
        if self.timer.due(self.step) or self.stop.received:
            self.save_now(self.step)

    @property
    def _guarded(self) -> bool:
        return self.recipe.guard.action != "off"

    def _validate(self) -> None:
        entry = self.history[-1]
        found: dict[str, float] = {}
        stop_training = self.trainer.stop_training
        for name, context in (("val", nullcontext), ("ema", self.trainer.averaged_weights)):
            if name == "ema" and not self.trainer.weight_averages:
                continue
            with context():
                found |= {f"{name}_{metric}": value for metric, value in self._evaluate().items()}
            self._end_if_told()  # with the raw weights in their place again
        self.trainer.stop_training = stop_training
        entry |= found
        self.progress.epoch(int(entry["epoch"]), entry)
        self._log_epoch(entry)
        if self._guarded and self.recipe.attack.kind != "none":
            validated = [epoch for epoch in self.history if "val_robust_accuracy" in epoch]
            check_overfitting(validated, self.recipe.guard.collapse, self.validation.n_examples)

    def _end_epoch(self, epoch: int) -> None:
        """Tell the user's callbacks, one of which may stop the run."""
        if self._callback_list is None:
            return
        entry = {name: value for name, value in self.history[-1].items() if name not in ("epoch", "step")}
        self._callback_list.on_epoch_end(epoch, entry)
        if self.distribution.any(bool(self.trainer.stop_training)):
            self.stopped = True
            self.progress.say(f"stopped by a callback after epoch {epoch + 1}")
            self.save_now(self.step, score=self._score())

    def _score(self) -> float | None:
        entry = self.history[-1]
        clean = self.recipe.attack.kind == "none"
        names = ("val_accuracy", "ema_accuracy") if clean else ("val_robust_accuracy", "ema_robust_accuracy")
        return max((entry[name] for name in names if name in entry), default=None)

    # Logs.

    def _log_step(self, step: int, values: Mapping[str, float]) -> None:
        if self.board is None:
            return
        seconds = self.progress.seconds_per_step()
        rate = {"images_per_second": self.recipe.data.batch_size / seconds} if seconds else {}
        wait = self.clock.share(seconds)
        waits = {} if wait is None else {"time/input_wait_share": wait}
        learning_rate = float(self.trainer.optimizer.learning_rate)
        self.board.scalars("train", {**values, "learning_rate": learning_rate, **rate, **waits}, step)

    def _log_epoch(self, entry: Mapping[str, float]) -> None:
        """Curves of validation, pictures of the attack, and what part of a step the attack takes."""
        if not self.distribution.writes:
            return
        write_text(self.out / "history.json", json.dumps(self.history, indent=1) + "\n")
        if self.board is None:
            return
        step = int(entry["step"])
        for prefix, run in (("val_", "validation"), ("ema_", "validation_averaged")):
            names = [name for name in entry if name.startswith(prefix)]
            self.board.scalars(run, {name.removeprefix(prefix): entry[name] for name in names}, step)
        rest = {name: value for name, value in entry.items() if not name.startswith(("val_", "ema_"))}
        self.board.scalars("epochs", rest, step)
        if self.distribution.processes == 1:
            self._log_attack(step)

    def _log_attack(self, step: int) -> None:
        if self.board is None:
            return
        x, y = self.validation.first(SHOWN)
        x_adv = self.trainer.validation_attack(self.model, x, y)
        sheet = data.attack_sheet(x, x_adv, max(1, 128 // x.shape[1]))
        self.board.picture("validation", PICTURE, sheet, step)
        seconds = self.progress.seconds_per_step()
        if not self.trainer.attacks or not seconds:
            return
        if self._attack_share is None:
            self._attack_share = attack_share(self.trainer, self.validation, self.recipe.data.batch_size / seconds)
        wait = self.clock.share(seconds) or 0.0
        shares = {"attack": self._attack_share, "input_wait": wait}
        shares["update"] = max(1.0 - sum(shares.values()), 0.0)
        self.board.scalars("train", {f"time/{name}_share": share for name, share in shares.items()}, step)

    # Checkpoints.

    def save_now(self, step: int, score: float | None = None) -> None:
        """Writes a checkpoint of the present state; all processes call it, one writes, the others wait for it."""
        arrays = checkpoints.capture(self.trainer)
        if self._guarded and checkpoints.not_finite(arrays):
            raise TrainingBroken(
                f"weights are not finite at step {step}, first {checkpoints.not_finite(arrays)[0]}; no checkpoint "
                "was written of them. guard.action=rollback goes on from the last good one."
            )
        info = {
            "fingerprint": self.recipe.fingerprint(),
            "num_classes": self.num_classes,
            "rollbacks": self.rollbacks,
            "history": self.history,
            "metrics": checkpoints.metrics_of(self.trainer),
            "validated": self.validated,
            "stopped": self.stopped,
            "score": score,
            "seed": seed_of(self.recipe, self.rollbacks),
            "backend": keras.backend.backend(),
        }
        if self.distribution.writes:
            self.folder.save(arrays, step, info)
        self.distribution.gather(0)
        self.timer.restart()

    def _roll_back(self, broken: TrainingBroken) -> None:
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

    def _is_good(self, checkpoint: Checkpoint) -> bool:
        """Whether robust accuracy had not collapsed when it was written, as far as anybody measured."""
        robust = [e["val_robust_accuracy"] for e in checkpoint.info["history"] if "val_robust_accuracy" in e]
        best = max((e.get("val_robust_accuracy", 0.0) for e in self.history), default=0.0)
        healthy = not robust or robust[-1] >= self.recipe.guard.collapse * best
        return self._accepts(checkpoint) and healthy

    # The end.

    def _write_models(self) -> None:
        """Saves the models; all processes set the weights, one writes."""
        save = save_model if self.distribution.writes else _save_nothing
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
        self.progress.say(
            f"best: {BEST}, {best.info['score']:.1%} at step {best.step}, on the validation images that it was chosen "
            "on: a figure to publish needs others"
        )
        if (advice := guards.of_end(best.info["score"], self.validation)) is not None:
            self.progress.say(advice)
        self.progress.say(f"all in {self.out}")


def _save_nothing(model: keras.Model, path: Path) -> None:
    """What the processes do that do not write."""
