"""The augmentations of the paper's two training recipes, as data."""

from dataclasses import dataclass, fields, replace

from keras_robust.checks import check_choice, check_count, check_number

# The operations of RandAugment `rand-m9-mstd0.5-inc1`: those whose severity increases with the magnitude.
OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)


@dataclass(frozen=True)
class Policy:
    """An augmentation: what is done to a training image, in this order, and with which numbers.

    Take one of `POLICIES` and change what you like: `dataclasses.replace(kr.data.POLICIES["heavy"], mixup_alpha=0.2)`.
    A probability of 0, no operations or an alpha of 0 leave a part out.

    Args:
        crop_scale: RandomResizedCrop: share of the image's area, from a uniform distribution; None for images that are
            cropped already, on the device.
        aspect_ratio: width divided by height, log-uniform. The crop is resized by Pillow's bicubic filter.
        flip_probability: of mirroring left and right.
        operations: names out of `OPERATIONS`, from which RandAugment draws with replacement.
        n_operations: how many it draws for an image.
        operation_probability: with which each is applied.
        magnitude: mean of their severity, of 10.
        magnitude_std: its standard deviation; draws are clipped to [0, 10].
        erase_probability: of random erasing: one box becomes standard normal noise, pixel by pixel.
        erase_area: share of the image's area, uniform.
        erase_aspect_ratio: height divided by width, log-uniform.
        mixup_alpha: of the distribution Beta(alpha, alpha) of the share lambda of an image in its mixture with another.
        cutmix_alpha: likewise of cutmix, where a box of share 1 - lambda comes from the other image.
        cutmix_probability: of cutmix where both have an alpha; else mixup is done. One of them always is.
        group_size: images that share one lambda; an image's partner is its mirror image in the order of the group.
        label_smoothing: share of a label that is spread over all classes.

    Raises:
        ValueError: a value that is not as described.
    """

    crop_scale: tuple[float, float] | None = (0.08, 1.0)
    aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.0
    operations: tuple[str, ...] = ()
    n_operations: int = 2
    operation_probability: float = 0.5
    magnitude: float = 9.0
    magnitude_std: float = 0.5
    erase_probability: float = 0.0
    erase_area: tuple[float, float] = (0.02, 1 / 3)
    erase_aspect_ratio: tuple[float, float] = (0.3, 3.3)
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    cutmix_probability: float = 0.5
    group_size: int = 80
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if isinstance(getattr(self, field.name), list):  # as JSON and command lines give them
                object.__setattr__(self, field.name, tuple(getattr(self, field.name)))
        for name in (
            "flip_probability",
            "operation_probability",
            "erase_probability",
            "cutmix_probability",
            "label_smoothing",
        ):
            if check_number(name, getattr(self, name)) > 1:
                raise ValueError(f"{name} must be in [0, 1]; received {getattr(self, name)!r}.")
        if self.crop_scale is not None:
            self._check_range("crop_scale", 1)
        for name, most in (("aspect_ratio", None), ("erase_area", 1), ("erase_aspect_ratio", None)):
            self._check_range(name, most)
        for name in ("magnitude_std", "mixup_alpha", "cutmix_alpha"):
            check_number(name, getattr(self, name))
        if check_number("magnitude", self.magnitude) > 10:
            raise ValueError(f"magnitude must be in [0, 10]; received {self.magnitude!r}.")
        for name in self.operations:
            check_choice("operations", name, OPERATIONS)
        check_count("n_operations", self.n_operations)
        check_count("group_size", self.group_size, least=2)

    def _check_range(self, name: str, most: int | None) -> None:
        value = getattr(self, name)
        if not isinstance(value, tuple) or len(value) != 2:
            raise ValueError(f"{name} must be a pair of numbers; received {value!r}.")
        low, high = (check_number(name, number) for number in value)
        if not 0 < low <= high or (most is not None and high > most):
            limit = "" if most is None else f" <= {most}"
            raise ValueError(f"{name} must be a pair 0 < low <= high{limit}; received {value!r}.")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with others."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0

    @property
    def host_part(self) -> "Policy":
        """What is done to the 8-bit pixels of one image: crop, flip and RandAugment."""
        return replace(self, erase_probability=0.0, mixup_alpha=0.0, cutmix_alpha=0.0, label_smoothing=0.0)

    @property
    def device_part(self) -> "Policy":
        """What follows in floats: random erasing, mixup or cutmix, label smoothing. See `DeviceAugmentation`."""
        return replace(self, crop_scale=None, flip_probability=0.0, operations=())


BASIC = Policy()
HEAVY = replace(
    BASIC,
    flip_probability=0.5,
    operations=OPERATIONS,
    erase_probability=0.25,
    mixup_alpha=0.8,
    cutmix_alpha=1.0,
    label_smoothing=0.1,
)
# Singh et al. 2023. The basic recipe's published code does not flip: replace(BASIC, flip_probability=0.5) does.
POLICIES = {"heavy": HEAVY, "basic": BASIC}


def find_policy(policy: str | Policy) -> Policy:
    """The policy of that name, or the policy itself."""
    if isinstance(policy, Policy):
        return policy
    if not isinstance(policy, str):
        raise ValueError(f"policy must be a name or a kr.data.Policy; received {policy!r}.")
    return POLICIES[check_choice("policy", policy, tuple(POLICIES))]
