"""The published robust checkpoints as data: what to build, how to evaluate it, what was reported.

All were trained on ImageNet against Linf 4/255 and evaluated on 5,000 validation images. Clean and Linf accuracies
(AutoAttack at 4/255) are those of RobustBench's board where the checkpoint is on it, else those that Singh et al.,
"Revisiting Adversarial Training for ImageNet", 2023 (arXiv 2303.01870), state; L2 and L1 (at 2 and 75) are theirs.

Their table has a Swin-B of 90 epochs at 74.76 / 48.10 / 44.42 / 18.04, cited as ARES'. ARES' own Swin-B was trained for
300 epochs and reaches 76.16 / 56.16; the public one of 90 epochs (Mo et al. 2022) reaches 74.66 / 38.30 on the board,
so that the 48.10 may be a misprint of 38.10. The two checkpoints are given here with the board's figures.
"""

from dataclasses import dataclass

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

PAPER = "https://arxiv.org/abs/2303.01870"
REVISITING_AT = "https://github.com/nmndeep/revisiting-at"
LIGHT_RECIPE = "https://github.com/dedeswim/vits-robustness-torch"
ROBARCH = "https://github.com/ShengYun-Peng/RobArch"
ARES = "https://github.com/thu-ml/ares"
MO_2022 = "https://arxiv.org/abs/2210.07540"


@dataclass(frozen=True)
class Preset:
    """A published checkpoint.

    Attributes:
        architecture: one of `keras_robust.models.names()`.
        epochs: epochs of adversarial training.
        attack_steps: iterations of the attack in training.
        clean, linf, l2, l1: published accuracies in percent; None where none was published.
        source: page that the weights are linked from, or the paper that reports the accuracies where it names none.
        normalization: `(mean, std)` of the model's first layer, or None for raw pixels.
        interpolation: how images are resized for evaluation.
        licence: of the weights, as stated at the source.
        resolution: height and width of the evaluation, in pixels.
        crop_pct: side of the centre crop over the shorter side of the resized image.
        threat: norm and radius of the attack in training, for pixels in [0, 1].
        robustbench: id on RobustBench's board, None for those that are not on it.
    """

    architecture: str
    epochs: int
    attack_steps: int
    clean: float
    linf: float
    l2: float | None = None
    l1: float | None = None
    source: str = REVISITING_AT
    normalization: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    interpolation: str = "bicubic"
    licence: str = "none stated"
    resolution: int = 224
    crop_pct: float = 0.875
    threat: tuple[str, float] = ("Linf", 4 / 255)
    robustbench: str | None = None

    @property
    def preprocessing(self) -> "Preprocessing":
        """How the images of the published evaluation were prepared."""
        return Preprocessing(self.resolution, self.crop_pct, self.interpolation)


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of an evaluation: height and width in pixels, crop over resized shorter side, interpolation."""

    resolution: int
    crop_pct: float
    interpolation: str


# Named by architecture and epochs.
PRESETS = {
    f"{preset.architecture}_{preset.epochs}ep": preset
    for preset in (
        Preset("resnet50", 100, 3, 65.88, 33.18, 18.88, 3.82, PAPER, IMAGENET, "bilinear"),
        Preset(
            "xcit_small",
            110,
            1,
            72.34,
            41.78,
            46.20,
            22.72,
            LIGHT_RECIPE,
            crop_pct=1.0,
            robustbench="Debenedetti2022Light_XCiT-S12",
        ),
        Preset("vit_small", 300, 2, 69.22, 44.04, 37.52, 15.12),
        Preset(
            "vit_small_convstem",
            300,
            2,
            72.56,
            48.08,
            50.40,
            26.68,
            normalization=IMAGENET,
            robustbench="Singh2023Revisiting_ViT-S-ConvStem",
        ),
        Preset("vit_medium_convstem", 50, 2, 72.4, 48.8),
        Preset("vit_base", 50, 2, 73.3, 50.0),
        Preset("vit_base", 300, 2, 76.62, 53.50, source=PAPER),
        Preset(
            "vit_base_convstem", 250, 2, 76.30, 54.66, 56.30, 32.06, robustbench="Singh2023Revisiting_ViT-B-ConvStem"
        ),
        Preset("robarch_small", 110, 3, 70.58, 44.12, 39.88, 15.46, ROBARCH, IMAGENET, "bilinear", "MIT"),
        Preset(
            "robarch_large",
            100,
            3,
            73.44,
            48.94,
            39.48,
            14.74,
            ROBARCH,
            IMAGENET,
            "bilinear",
            "MIT",
            robustbench="Peng2023Robust",
        ),
        Preset("convnext_isotropic_small", 300, 2, 69.04, 44.22, 36.64, 14.88, PAPER),
        Preset("convnext_isotropic_small_convstem", 300, 2, 70.2, 45.9),
        Preset("convnext_tiny", 110, 1, 71.60, 44.40, 45.32, 21.76, LIGHT_RECIPE),
        Preset("convnext_tiny", 300, 2, 72.40, 48.60, 38.02, 14.88),
        Preset(
            "convnext_tiny_convstem",
            300,
            2,
            72.72,
            49.46,
            48.42,
            24.52,
            robustbench="Singh2023Revisiting_ConvNeXt-T-ConvStem",
        ),
        Preset("convnext_small_convstem", 50, 2, 74.10, 52.42, robustbench="Singh2023Revisiting_ConvNeXt-S-ConvStem"),
        Preset("convnext_base", 50, 2, 75.6, 54.3),
        Preset(
            "convnext_base",
            300,
            3,
            76.02,
            55.82,
            44.68,
            21.23,
            ARES,
            IMAGENET,
            "bicubic",
            "Apache-2.0",
            robustbench="Liu2023Comprehensive_ConvNeXt-B",
        ),
        Preset(
            "convnext_base_convstem",
            250,
            2,
            75.90,
            56.14,
            49.12,
            23.34,
            robustbench="Singh2023Revisiting_ConvNeXt-B-ConvStem",
        ),
        Preset("convnext_large_convstem", 100, 2, 77.0, 57.7, robustbench="Singh2023Revisiting_ConvNeXt-L-ConvStem"),
        Preset(
            "swin_base",
            90,
            3,
            74.66,
            38.30,
            source=MO_2022,
            normalization=IMAGENET,
            interpolation="bilinear",
            crop_pct=1.0,
            robustbench="Mo2022When_Swin-B",
        ),
        Preset(
            "swin_base",
            300,
            3,
            76.16,
            56.16,
            None,
            None,
            ARES,
            IMAGENET,
            "bicubic",
            "Apache-2.0",
            robustbench="Liu2023Comprehensive_Swin-B",
        ),
    )
}
