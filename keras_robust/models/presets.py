"""The published robust checkpoints as data: what to build, where its file is, how to evaluate it, what was reported.

All were trained on ImageNet. The rows are in `presets.csv`: RobustBench's whole ImageNet board (Linf), the further
files of Singh et al., "Revisiting Adversarial Training for ImageNet", 2023 (arXiv 2303.01870), of ARES, of the Light
Recipe (Debenedetti et al. 2022), of RobArch and of AdvXL (Wang et al. 2024). Clean and Linf accuracies (AutoAttack at
the preset's radius) are those of the board where the checkpoint is on it, else those that its authors state; L2 and L1
(at 2 and 75) are of Singh et al., or the authors'. ARES states those that the board lacks on 1,000 images.

The table of Singh et al. has a Swin-B of 90 epochs at 74.76 / 48.10 / 44.42 / 18.04, cited as ARES'. ARES' own Swin-B
was trained for 300 epochs and reaches 76.16 / 56.16; the public one of 90 epochs (Mo et al. 2022) reaches 74.66 / 38.30
on the board, so that the 48.10 may be a misprint of 38.10. The two checkpoints have the board's figures here.

MixedNUTS is on the board, and is built by `keras_robust.models.mixed_nuts`, but cannot be had by name: see there.

Files that were fine-tuned to 8/255 by Singh et al. are linked from their page; it states no figures for them.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of an evaluation.

    Attributes:
        resolution: height and width of the images, in pixels.
        crop_pct: side of the centre crop over the shorter side of the resized image.
        interpolation: of the resize: "bicubic" or "bilinear"; "none" crops the image as it is.
    """

    resolution: int
    crop_pct: float
    interpolation: str


# By RobustBench's names; those that it has none for are called alike. 373 is floor(336 / 0.9), timm's default.
PREPROCESSINGS = {
    "BicubicRes256Crop224": Preprocessing(224, 0.875, "bicubic"),
    "Res256Crop224": Preprocessing(224, 0.875, "bilinear"),
    "BicubicRes224": Preprocessing(224, 1.0, "bicubic"),
    "Res224": Preprocessing(224, 1.0, "bilinear"),
    "Crop288": Preprocessing(288, 1.0, "none"),
    "BicubicRes373Crop336": Preprocessing(336, 0.9, "bicubic"),
}


@dataclass(frozen=True)
class Preset:
    """A published checkpoint.

    Attributes:
        architecture: one of `keras_robust.models.names()`, or one that this version does not have yet.
        epochs: epochs of adversarial training; None where they are not known.
        attack_steps: iterations of the attack in training; 0 for a net that was trained clean, None if not known.
        clean, linf, l2, l1: published accuracies in percent; None where none was published.
        external: the lowest robust accuracy at Linf that others than the authors reported, in percent, where the board
            has one below AutoAttack's; see `caution`.
        threat: norm and radius of `linf`, and of the attack in training, for pixels in [0, 1].
        n_examples: how many validation images the accuracies are of.
        normalization: `(mean, std)` of the model's first layer, or None for raw pixels.
        preprocessing: how images were prepared for the published evaluation.
        licence: of the weights: as stated at the source, or by RobustBench for the files that it hosts.
        robustbench: id on RobustBench's board, None for those that are not on it.
        file: address of the weights, see `keras_robust.weights.fetch`; None where they are to be downloaded by hand.
        sha256: of the file, or how it begins; None where it is not known.
        source: page that the weights are linked from, or the paper that reports the accuracies where it names none.
    """

    architecture: str
    epochs: int | None
    attack_steps: int | None
    clean: float
    linf: float
    l2: float | None
    l1: float | None
    external: float | None
    threat: tuple[str, float]
    n_examples: int
    normalization: tuple[tuple[float, float, float], tuple[float, float, float]] | None
    preprocessing: Preprocessing
    licence: str
    robustbench: str | None
    file: str | None
    sha256: str | None
    source: str

    @property
    def lowest(self) -> float:
        """The lowest robust accuracy at Linf that anybody reported, in percent."""
        return self.linf if self.external is None else min(self.linf, self.external)

    @property
    def caution(self) -> str | None:
        """Why `linf` is to be doubted, a sentence; None where nobody reported less."""
        if self.lowest == self.linf:
            return None
        return (
            f"AutoAttack overstates {self.architecture}: {self.linf:.2f} % by AutoAttack at {self.threat[0]} "
            f"{round(255 * self.threat[1])}/255, {self.lowest:.2f} % by a stronger attack of others."
        )

    @property
    def training_threat(self) -> tuple[str, float] | None:
        """Norm and radius of the attack in training; None for a net that was trained clean."""
        return None if self.attack_steps == 0 else self.threat


def _read(path: Path) -> dict[str, Preset]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row.pop("name"): _preset(row) for row in csv.DictReader(file)}


def _preset(row: dict[str, Any]) -> Preset:
    """A line of the table; empty cells are None."""
    cells: dict[str, Any] = {name: cell or None for name, cell in row.items()}
    for name in ("epochs", "attack_steps", "n_examples"):
        cells[name] = cells[name] and int(cells[name])
    for name in ("clean", "linf", "l2", "l1", "external"):
        cells[name] = cells[name] and float(cells[name])
    cells["threat"] = ("Linf", int(cells.pop("eps")) / 255)
    cells["normalization"] = {None: None, "imagenet": IMAGENET}[cells["normalization"]]
    cells["preprocessing"] = PREPROCESSINGS[cells["preprocessing"]]
    return Preset(**cells)


# By name: architecture and epochs, or architecture and publication.
PRESETS = _read(Path(__file__).with_name("presets.csv"))
