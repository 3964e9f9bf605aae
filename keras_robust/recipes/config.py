"""Configuration of a training run: one frozen, validated dataclass, in parts."""

import hashlib
import json
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from os import PathLike
from typing import Any, cast

from keras_robust.attacks import APGD
from keras_robust.checks import check_choice, check_count, check_number, did_you_mean
from keras_robust.data.pipeline import ENGINES
from keras_robust.files import printable, read_text
from keras_robust.models import is_foreign, names
from keras_robust.training.objectives import OBJECTIVES

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
ATTACKS = ("apgd", "pgd", "fgsm", "fgsm-rs", "n-fgsm", "none")
PARTS = ("stem", "head")


@dataclass(frozen=True)
class ModelConfig:
    """Arguments of `kr.models.create`, or of `kr.models.adapted` for a model of other origin.

    Attributes:
        name: one of `kr.models.names()`; "applications:NAME", "hub:PRESET" or the path of a .keras file, which come
            with their weights and, where they have other classes, get a new head.
        pixels: what the model of a .keras file takes; see `kr.adapt`.
        num_classes: None for as many as the data have.
        normalization: None for raw pixels, or (mean, std).
        drop_path_rate: stochastic depth; 0 in the published training.
        layer_scale_init: None for the published value.
    """

    name: str = "convnext_tiny_convstem"
    pixels: str | None = None
    num_classes: int | None = None
    normalization: tuple[tuple[float, ...], ...] | None = None
    drop_path_rate: float = 0.0
    layer_scale_init: float | None = None

    def __post_init__(self) -> None:
        if not is_foreign(self.name):
            check_choice("model.name", self.name, names())
            if self.pixels is not None:
                raise ValueError(f"model.pixels is for a .keras file; received {self.pixels!r} for {self.name}.")
        elif self.normalization is not None or self.drop_path_rate or self.layer_scale_init is not None:
            raise ValueError(
                "model.normalization, model.drop_path_rate and model.layer_scale_init must be left out for "
                f"{self.name}; received {self.normalization!r}, {self.drop_path_rate!r}, {self.layer_scale_init!r}."
            )


@dataclass(frozen=True)
class StartConfig:
    """Source of the weights.

    Attributes:
        weights: None for random ones; a run's folder (its best averaged weights are taken) or a file that
            `kr.weights.load` reads.
        new: of "stem" and "head" what is not taken from there but stays random: a ConvStem in place of the
            checkpoint's PatchStem, say.
        train_only: None, or "stem": everything else stays as it is.
    """

    weights: str | None = None
    new: tuple[str, ...] = ()
    train_only: str | None = None

    def __post_init__(self) -> None:
        for part in self.new:
            check_choice("start.new", part, PARTS)
        if self.train_only is not None:
            check_choice("start.train_only", self.train_only, PARTS)
        if self.weights is None and self.train_only:
            raise ValueError(
                "start.train_only needs start.weights, or all but that part would stay random; "
                f"received {self.train_only!r} and no weights."
            )


@dataclass(frozen=True)
class DataConfig:
    """Images for training and validation.

    Attributes:
        source: what `kr.data.source` takes: "photo_crops", a folder, a tar, an .npz, "tfds:imagenet2012",
            "train-{0000..1023}.tar", "data/train-{00000..00013}-of-00014.parquet".
        validation: None where the source holds validation images or a fifth of it may be held out as such; else what
            `kr.data.source` takes, of the same classes, and all of the source is trained on.
        data_dir, download: of "tfds:" data sets; nothing is downloaded unasked.
        policy: "heavy" or "basic" augmentation (Singh et al. 2023); any that `kr.data.TrainPipeline` knows.
        resolution: height and width in training, pixels.
        schedule: progressive resolution: pairs (first epoch, resolution), from the first of them on in place of
            `resolution`.
        batch_size: images of one micro-batch over all devices.
        skip_corrupt: count and skip images that cannot be decoded, rather than stop.
        engine: of `kr.data.TrainPipeline`. With "grain", on every backend, 8-bit images go to the device, and what is
            float is done to them inside the compiled step; "tf.data" needs TensorFlow.
        workers: processes that read images; none for as many as there are cores, divided among the processes that
            train on one machine; 0 to read them in this process.
    """

    source: str = "photo_crops"
    validation: str | None = None
    data_dir: str | None = None
    download: bool = False
    policy: str = "heavy"
    resolution: int = 224
    schedule: tuple[tuple[int, int], ...] = ()
    batch_size: int = 640
    skip_corrupt: bool = False
    engine: str = "grain"
    workers: int | None = None

    def __post_init__(self) -> None:
        check_count("data.resolution", self.resolution)
        check_count("data.batch_size", self.batch_size)
        check_choice("data.engine", self.engine, ENGINES)
        if self.workers is not None:
            check_count("data.workers", self.workers, least=0)
        for pair in self.schedule:
            if len(pair) != 2:
                raise ValueError(f"data.schedule must be pairs (first epoch, resolution); received {pair!r}.")
            check_count("data.schedule", pair[0], least=0)
            check_count("data.schedule", pair[1])
        if list(self.schedule) != sorted(self.schedule):
            raise ValueError(f"data.schedule must be in the order of the epochs; received {self.schedule!r}.")

    def resolution_at(self, epoch: int) -> int:
        """Height and width of the training images in an epoch, counted from 0."""
        return next((side for first, side in reversed(self.schedule) if first <= epoch), self.resolution)


@dataclass(frozen=True)
class TrainingConfig:
    """The optimisation; defaults as published (Singh et al. 2023).

    Attributes:
        epochs: passes through the data.
        steps_per_epoch: None for all of the data, or a number of micro-batches.
        learning_rate, final_learning_rate, warmup_epochs: of `WarmupCosine`.
        weight_decay, betas, epsilon: of `adamw`.
        accumulate: micro-batches per update of the weights.
        ema_decay: of the moving averages of the weights, per update; None for none.
        objective: "adversarial", "trades" or "mart".
        beta: of TRADES and MART; None for the published value.
        precision: a Keras policy; logits and losses are float32 whatever it is.
        seed: of initial weights, data order, augmentation and attacks.
    """

    epochs: int = 300
    steps_per_epoch: int | None = None
    learning_rate: float = 1e-3
    final_learning_rate: float = 5e-6
    warmup_epochs: int | None = None
    weight_decay: float = 0.05
    betas: tuple[float, ...] = (0.9, 0.95)
    epsilon: float = 1e-8
    accumulate: int = 1
    ema_decay: float | None = 0.9999
    objective: str = "adversarial"
    beta: float | None = None
    precision: str = "mixed_bfloat16"
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("training.epochs", self.epochs)
        check_count("training.accumulate", self.accumulate)
        check_count("training.seed", self.seed, least=0)
        if self.steps_per_epoch is not None:
            check_count("training.steps_per_epoch", self.steps_per_epoch)
        for name in ("learning_rate", "final_learning_rate", "weight_decay", "epsilon"):
            check_number(f"training.{name}", getattr(self, name))
        if len(self.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"training.betas must be two numbers in [0, 1); received {self.betas!r}.")
        if self.ema_decay is not None and not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(f"training.ema_decay must be none or in [0, 1); received {self.ema_decay!r}.")
        check_choice("training.objective", self.objective, tuple(OBJECTIVES))
        if self.beta is not None and self.objective == "adversarial":
            raise ValueError(f"training.beta is for the objectives trades and mart; received {self.beta!r}.")
        check_choice("training.precision", self.precision, PRECISIONS)


@dataclass(frozen=True)
class AttackConfig:
    """The attack in training.

    Attributes:
        kind: "apgd", "pgd", "fgsm", "fgsm-rs" (Wong et al. 2020), "n-fgsm" (de Jorge et al. 2022), or "none" for clean
            training.
        norms, eps: threat models, as many of the one as of the other; each update draws one of several. The first is
            the one of validation.
        n_iter: steps of APGD and PGD.
        eps_warmup_epochs: epochs over which the radius rises to eps.
    """

    kind: str = "apgd"
    norms: tuple[str, ...] = ("Linf",)
    eps: tuple[float, ...] = (4 / 255,)
    n_iter: int = 2
    eps_warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        check_choice("attack.kind", self.kind, ATTACKS)
        check_count("attack.n_iter", self.n_iter)
        check_number("attack.eps_warmup_epochs", self.eps_warmup_epochs)
        if not self.norms or len(self.norms) != len(self.eps):
            raise ValueError(f"attack.eps must be one per norm; received {self.eps!r} for norms {self.norms!r}.")
        for norm, eps in zip(self.norms, self.eps):
            check_choice("attack.norms", norm, APGD.supported_norms)
            check_number("attack.eps", eps)


@dataclass(frozen=True)
class EvaluationConfig:
    """Validation during training: clean accuracy and that under multi-step APGD, raw and averaged weights.

    Attributes:
        n_examples: of the validation split, drawn once.
        n_iter: steps of the attack.
        every: epochs between two validations; the last epoch is always followed by one.
        resolution: None for that of training.
        batch_size: None for that of training.
    """

    n_examples: int = 1000
    n_iter: int = 10
    every: int = 1
    resolution: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("n_examples", "n_iter", "every"):
            check_count(f"evaluation.{name}", getattr(self, name))
        for name in ("resolution", "batch_size"):
            if getattr(self, name) is not None:
                check_count(f"evaluation.{name}", getattr(self, name))


@dataclass(frozen=True)
class CheckpointConfig:
    """Times at which checkpoints are written, besides after every validation, and how many are kept.

    Attributes:
        every_steps: None, or micro-batches between two checkpoints.
        every_minutes: between two checkpoints.
        keep_last: how many of the latest.
        keep_best: how many of those of the highest robust accuracy.
    """

    every_steps: int | None = None
    every_minutes: float = 15.0
    keep_last: int = 2
    keep_best: int = 1

    def __post_init__(self) -> None:
        if self.every_steps is not None:
            check_count("checkpoints.every_steps", self.every_steps)
        check_number("checkpoints.every_minutes", self.every_minutes)
        check_count("checkpoints.keep_last", self.keep_last)
        check_count("checkpoints.keep_best", self.keep_best, least=0)


@dataclass(frozen=True)
class GuardConfig:
    """Reaction to a training that breaks: a loss that is not finite, or catastrophic overfitting.

    Attributes:
        action: "stop", or "rollback": go on from the last good checkpoint with half the learning rate and other random
            draws; "off".
        collapse: catastrophic overfitting is robust accuracy below this share of the best so far, while training
            accuracy is not below the same share of its best.
        rollbacks: how many are allowed before the run stops.
    """

    action: str = "stop"
    collapse: float = 0.5
    rollbacks: int = 2

    def __post_init__(self) -> None:
        check_choice("guard.action", self.action, ("stop", "rollback", "off"))
        check_count("guard.rollbacks", self.rollbacks, least=0)
        if not 0.0 < self.collapse < 1.0:
            raise ValueError(f"guard.collapse must lie between 0 and 1; received {self.collapse!r}.")


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run depends on.

    The parts check themselves: a value out of range is a `ValueError` that names the setting, what came and what is
    accepted. `kr.recipes.overrides` reads and writes recipes as JSON and applies `training.epochs=50` from the command
    line.

    Example:
        >>> recipe = Recipe("mine", model=ModelConfig("vit_small"), training=TrainingConfig(epochs=50))
        >>> kr.recipes.train(recipe, "runs/mine")  # days  # doctest: +SKIP
    """

    name: str
    model: ModelConfig = field(default_factory=ModelConfig)
    start: StartConfig = field(default_factory=StartConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)

    def __post_init__(self) -> None:
        for part in fields(self)[1:]:
            wanted = cast(type, part.default_factory)
            if not isinstance(getattr(self, part.name), wanted):
                received = getattr(self, part.name)
                raise ValueError(f"{part.name} must be a {wanted.__name__}; received {received!r}.")
        warm = self.training.warmup_epochs
        if warm is not None and warm > self.training.epochs:
            raise ValueError(f"training.warmup_epochs must be at most training.epochs; received {warm!r}.")
        if self.training.objective == "trades" and self.attack.kind not in ("fgsm-rs", "n-fgsm", "pgd"):
            raise ValueError(
                "attack.kind must start at a random point with training.objective=trades: pgd, fgsm-rs or n-fgsm; "
                f"received {self.attack.kind!r}."
            )
        if self.training.objective != "adversarial" and self.attack.kind == "none":
            raise ValueError(
                f"training.objective must be 'adversarial' without attack; received {self.training.objective!r}."
            )

    def to_json(self) -> str:
        """The recipe as JSON text.

        Example:
            >>> recipe = Recipe("mine")
            >>> Recipe.from_json(recipe.to_json()) == recipe
            True
        """
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """The recipe of `to_json`.

        Raises:
            ValueError: no recipe, an unknown setting, or a value that is not accepted.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"a recipe must be JSON; {error}") from None
        return _build(cls, values, "recipe")

    @classmethod
    def load(cls, path: str | PathLike) -> "Recipe":
        """The recipe in a file, such as the `recipe.json` of a run.

        Raises:
            ValueError: as `from_json`; the message names the file.
        """
        text = read_text(path)
        try:
            return cls.from_json(text)
        except ValueError as error:
            raise ValueError(f"{printable(path)}: {error}") from error

    def fingerprint(self) -> str:
        """A hash of what decides the weights; data may move to another folder."""
        parts = json.loads(self.to_json())
        for part in ("name", "evaluation", "checkpoints", "guard"):
            del parts[part]
        for setting in ("source", "data_dir", "download", "workers"):
            del parts["data"][setting]
        parts["data"]["validation"] = self.data.validation is None  # a fifth of the images may not be trained on
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def differences(self, other: "Recipe") -> list[str]:
        """The settings in which two recipes differ, as text."""
        a, b = (json.loads(recipe.to_json()) for recipe in (self, other))
        found = []
        for part in a:
            if isinstance(a[part], dict):
                found += [f"{part}.{s}={a[part][s]}, not {b[part][s]}" for s in a[part] if a[part][s] != b[part][s]]
        return found

    @property
    def warns(self) -> list[Any]:
        """What in the recipe is known to go wrong, as sentences."""
        adversarial = self.attack.kind != "none"
        if adversarial and self.start.weights is None and self.data.policy == "heavy":
            return [
                "adversarial training from random weights with heavy augmentation fails in the paper's experiments "
                "(Singh et al. 2023): start from a clean model (--start runs/clean) or set data.policy=basic."
            ]
        return []


def _build(kind: type, values: Any, name: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{name} must be a JSON object; received {values!r}.")
    hints = typing.get_type_hints(kind)
    unknown = sorted(values.keys() - hints.keys())
    if unknown:
        raise ValueError(
            f"a setting of {name} must be one of {', '.join(hints)}; received {unknown[0]!r}."
            f"{did_you_mean(unknown[0], hints)}"
        )
    arguments: dict[str, Any] = {}
    for setting, value in values.items():
        if is_dataclass(hints[setting]):
            arguments[setting] = _build(hints[setting], value, setting)
        else:
            arguments[setting] = _tuples(value)
    try:
        return kind(**arguments)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
