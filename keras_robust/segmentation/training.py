"""Training of segmentation models: recipes as data, and what trains them, resumable epoch by epoch."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_robust import attacks
from keras_robust import weights as weight_files
from keras_robust.checks import check_count
from keras_robust.evaluation.result_store import check_same
from keras_robust.files import printable, read_json, write_text, written_aside
from keras_robust.recipes.checkpoints import CheckpointFolder, capture, restore
from keras_robust.segmentation.batches import MaskBatches
from keras_robust.segmentation.objective import PixelCrossEntropy
from keras_robust.segmentation.registry import create, load_backbone, with_auxiliary_head
from keras_robust.segmentation.sources import MaskSource, pairs_sha256
from keras_robust.threat import ThreatModel
from keras_robust.training import AdversarialModel, WarmupPolynomial, adamw

RECIPE, MODEL, HISTORY, CHECKPOINTS = "recipe.json", "model.keras", "history.json", "checkpoints"


@dataclass(frozen=True)
class SegmentationRecipe:
    """A training run of a segmentation model as data: AdamW, linear decay, images and masks augmented alike.

    Attributes:
        model: of `kr.segmentation.names()`.
        num_classes: of a pixel.
        size: height and width of the crops, in pixels.
        epochs, warmup_epochs: of training; the rate rises over the first and falls linearly to 0.
        batch_size: images.
        learning_rate, weight_decay: of AdamW.
        drop_path_rate, layer_scale_init: of the backbone.
        eps, n_iter, step_size: of PGD under Linf from the image itself; `n_iter` 0 for clean training.
        auxiliary_weight: of the auxiliary head's loss.
        seed: of weights, batches and attack.
    """

    model: str
    num_classes: int
    size: tuple[int, int]
    epochs: int
    warmup_epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    drop_path_rate: float = 0.4
    layer_scale_init: float | None = None
    eps: float = 4 / 255
    n_iter: int = 5
    step_size: float = 0.01
    auxiliary_weight: float = 0.4
    seed: int = 0

    @property
    def passes(self) -> int:
        """Forward-equivalents of a training step per image: 3 of the update, 2 of each gradient of the attack."""
        return 3 + 2 * self.n_iter


def train(
    recipe: SegmentationRecipe,
    pairs: MaskSource | Sequence[tuple[np.ndarray, np.ndarray]],
    out: str | PathLike,
    backbone: str | PathLike | None = None,
    verbose: int = 2,
) -> keras.Model:
    """Trains a recipe, or goes on with it after its last whole epoch, to the weights of an uninterrupted run.

    Args:
        recipe: a `SegmentationRecipe`.
        pairs: images and masks, a `MaskSource` or a sequence of pairs.
        out: folder of the run: `recipe.json`, `checkpoints/`, and at the end `model.keras` and `history.json`.
        backbone: file with a classifier's weights to start from, which takes raw pixels; none for random weights.
        verbose: of `fit`.

    Returns:
        The trained model, without its auxiliary head; read from `out` where the run is done.

    Raises:
        ValueError: `backbone` is no file; `out` holds a run of another recipe, from other weights (whatever their file
            is called), on other images or masks, or on another backend.

    Example:
        >>> recipe = kr.segmentation.SegmentationRecipe(
        ...     "upernet_convnext_tiny_convstem", 21, (473, 473), 50, 10, 32, 1e-3, 0.01
        ... )
        >>> kr.segmentation.train(recipe, pairs, "runs/voc", "robust.keras")  # days  # doctest: +SKIP
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if backbone is not None and not Path(backbone).is_file():
        raise ValueError(f"backbone must be a file with weights; received {printable(backbone)}.")
    found = {
        **asdict(recipe),
        "backbone": None if backbone is None else weight_files.sha256_of(Path(backbone)),
        "pairs": pairs_sha256(pairs),
        "backend": keras.backend.backend(),
    }
    settings = json.loads(json.dumps(found))
    if (out / RECIPE).is_file():
        check_same(settings, read_json(out / RECIPE), f"out is {out}, which holds another run")
    else:
        write_text(out / RECIPE, json.dumps(settings, indent=1) + "\n")
    if (out / MODEL).is_file():
        return keras.saving.load_model(out / MODEL)
    keras.utils.set_random_seed(recipe.seed)
    net = create(
        recipe.model,
        recipe.num_classes,
        drop_path_rate=recipe.drop_path_rate,
        layer_scale_init=recipe.layer_scale_init,
    )
    if backbone is not None:
        load_backbone(net, backbone, stated=True)
    batches = MaskBatches(pairs, recipe.size, recipe.batch_size, seed=recipe.seed)
    trainer = _trainer(recipe, net, len(batches))
    folder = CheckpointFolder(out / CHECKPOINTS, keep_last=1, keep_best=0)
    history: dict[str, list[float]] = {}
    if (latest := folder.latest()) is not None:
        checkpoint, arrays = latest
        restore(trainer, arrays, checkpoint.path)
        history, batches.epoch = checkpoint.info["history"], checkpoint.step
    trainer.fit(
        batches,
        initial_epoch=batches.epoch,
        epochs=recipe.epochs,
        shuffle=False,  # the batches have an order of their own
        callbacks=[_EpochCheckpoints(folder, history)],
        verbose=verbose,
    )
    write_text(out / HISTORY, json.dumps(history, indent=1) + "\n")
    with written_aside(out / MODEL) as aside:
        net.save(aside)
    return net


def _trainer(recipe: SegmentationRecipe, net: keras.Model, steps_per_epoch: int) -> AdversarialModel:
    """The compiled model that trains `net` as a recipe says."""
    threat = ThreatModel("Linf", recipe.eps)
    attack = None
    if check_count("n_iter", recipe.n_iter, least=0):
        attack = attacks.PGD(threat, n_iter=recipe.n_iter, step_size=recipe.step_size, returns="last")
    loss = PixelCrossEntropy(auxiliary_weight=recipe.auxiliary_weight)
    trainer = AdversarialModel(
        with_auxiliary_head(net),
        attack,
        validation_attack=attacks.PGD(threat, n_iter=1, returns="misclassified"),  # of validation that there is not
        objective=loss,
        seed=recipe.seed,
    )
    rate = WarmupPolynomial(recipe.learning_rate, recipe.epochs, steps_per_epoch, recipe.warmup_epochs)
    trainer.compile(adamw(trainer.model, rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.999)), loss)
    return trainer


class _EpochCheckpoints(keras.callbacks.Callback):
    """Writes a checkpoint after each epoch, with what was logged and the seconds that the epochs took so far."""

    def __init__(self, folder: CheckpointFolder, history: dict[str, list[float]]) -> None:
        super().__init__()
        self._folder, self._history = folder, history

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        for name, value in {**(logs or {}), "seconds": time.monotonic() - self._started}.items():
            self._history.setdefault(name, []).append(float(value))
        self._folder.save(capture(self.model), epoch + 1, {"history": self._history})
