"""Page in which a photograph is attacked: what a model answers before and after, two models side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_robust.attacks import APGD
from keras_robust.checks import check_count
from keras_robust.data.preprocessing import decode, resize_and_crop
from keras_robust.data.visualization import amplified_difference
from keras_robust.models.outputs import check_class_names, class_names
from keras_robust.threat import ThreatModel

# The largest radius that a visitor may ask for.
LARGEST = {"Linf": 32 / 255, "L2": 10.0, "L1": 500.0}
# The field's usual radii: from the resolution on, as ImageNet's, and below it, as CIFAR-10's.
USUAL = {128: {"Linf": 4 / 255, "L2": 2.0, "L1": 75.0}, 0: {"Linf": 4 / 255, "L2": 0.5, "L1": 12.0}}
N_SHOWN = 5  # classes of an answer
SHOWN_PIXELS = 224  # side of a picture on the page, at least about
MOST_MODELS = 2
MOST_BYTES = 10_000_000  # of a photograph
MOST_WAITING = 16  # requests
KEPT_SECONDS = 600  # photographs and answers on the disk, at least; at most twice as long


@dataclass(frozen=True)
class Attacked:
    """A model's answers to one photograph, before and after an attack on its first answer.

    Attributes:
        before, after: class name -> probability, the likeliest first.
        image, adversarial, difference: uint8 of shape (resolution, resolution, 3); the last is amplified to the full
            range of pixels, mid-grey where nothing changed.
        norm: of the perturbation.
        misclassified: whether the answer changed.
    """

    before: dict[str, float]
    after: dict[str, float]
    image: np.ndarray
    adversarial: np.ndarray
    difference: np.ndarray
    norm: float
    misclassified: bool


class PhotoAttack:
    """Attacks of one photograph on one or two models: APGD on the margin, from a random start, on each by itself.

    Args:
        models: name -> model from pixels in [0, 1] to logits, differentiable; all of the same classes.
        resolution: side of the images that the models see, in pixels.
        crop_pct, interpolation: see `keras_robust.data.resize_and_crop`.
        names: of the classes; if not given, those that the first model knows, else their numbers.
        n_iter: gradient steps of an attack.

    Raises:
        ValueError: there are no models or too many, or they do not fit one another.

    Example:
        >>> attack = PhotoAttack({"small": model}, resolution=16, n_iter=5)
        >>> photo = (255 * x[0]).round().astype("uint8")
        >>> found = attack(photo, "Linf", 8 / 255)["small"]
        >>> found.norm <= 8 / 255 + 1e-6, found.difference.shape
        (True, (16, 16, 3))
    """

    def __init__(
        self,
        models: Mapping[str, Any],
        resolution: int = 224,
        crop_pct: float = 0.875,
        interpolation: str = "bicubic",
        names: Sequence[str] | None = None,
        n_iter: int = 40,
    ) -> None:
        if not 1 <= len(models) <= MOST_MODELS:
            raise ValueError(f"models must be one or two; received {len(models)}.")
        self.models = dict(models)
        self.resolution = check_count("resolution", resolution)
        self.preprocessing = (crop_pct, interpolation)
        self.n_iter = check_count("n_iter", n_iter)
        grey = np.full((1, resolution, resolution, 3), 0.5, np.float32)
        counts = {name: self._logits(model, grey).shape[-1] for name, model in self.models.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"models must have the same classes; received {counts}.")
        count, known = next(iter(counts.values())), class_names(next(iter(self.models.values())))
        self.names = check_class_names(names or known or [str(number) for number in range(count)], count)
        for model in self.models.values():
            if class_names(model) not in (None, self.names):
                raise ValueError(f"models must have the same classes in one order, {', '.join(self.names)[:200]}.")
        self._attack = lru_cache(maxsize=16)(self._new_attack)

    def __call__(self, photo: np.ndarray | str | PathLike, norm: str, eps: float) -> dict[str, Attacked]:
        """Attack every model on a photograph.

        Args:
            photo: uint8 of shape (height, width, 3), or the path of an image file.
            norm: one of `LARGEST`.
            eps: radius, in units of pixels in [0, 1]; at most the norm's in `LARGEST`.

        Raises:
            ValueError: an argument is not as described; the file is no image or too large.
        """
        if norm not in LARGEST:
            raise ValueError(f"norm must be one of {', '.join(LARGEST)}; received {norm!r}.")
        if not 0 < eps <= LARGEST[norm]:
            raise ValueError(f"eps must be above 0 and at most {LARGEST[norm]:.4g} under {norm}; received {eps!r}.")
        pixels = photo if isinstance(photo, np.ndarray) else decode(photo, "the photograph")
        image = resize_and_crop(pixels, self.resolution, *self.preprocessing)
        x = image[None].astype(np.float32) / 255
        return {name: self._on(model, x, norm, float(eps)) for name, model in self.models.items()}

    def _on(self, model: Any, x: np.ndarray, norm: str, eps: float) -> Attacked:
        before = self._logits(model, x)
        x_adv = np.asarray(self._attack(norm, eps)(model, x, before.argmax(axis=-1)))
        after = self._logits(model, x_adv)
        return Attacked(
            before=self._likeliest(before[0]),
            after=self._likeliest(after[0]),
            image=_bytes(x),
            adversarial=_bytes(x_adv),
            difference=_bytes(amplified_difference(x, x_adv)),
            norm=float(ThreatModel(norm, eps).perturbation_norm(x_adv - x)[0]),
            misclassified=bool(before.argmax() != after.argmax()),
        )

    def _new_attack(self, norm: str, eps: float) -> APGD:
        how: dict[str, Any] = {"loss": "margin", "random_start": True, "returns": "misclassified"}
        return APGD(ThreatModel(norm, eps), n_iter=self.n_iter, **how)

    @staticmethod
    def _logits(model: Any, x: np.ndarray) -> np.ndarray:
        return np.asarray(keras.ops.convert_to_numpy(model(keras.ops.convert_to_tensor(x))), np.float32)

    def usual(self, norm: str) -> float:
        """The radius that is usual under a norm at this resolution."""
        return USUAL[max(least for least in USUAL if least <= self.resolution)][norm]

    def _likeliest(self, logits: np.ndarray) -> dict[str, float]:
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        return {self.names[i]: float(shares[i]) for i in np.argsort(-shares, kind="stable")[:N_SHOWN]}


def page(attack: PhotoAttack, examples: Sequence[str | PathLike] = ()) -> Any:
    """The page as a `gradio.Blocks`, to launch; what waits in line is bounded, and photographs and answers are deleted.

    Args:
        attack: of the models that are shown.
        examples: paths of photographs to choose from.

    Raises:
        ImportError: Gradio is not installed.
    """
    gradio = gradio_module()
    kept = (KEPT_SECONDS, KEPT_SECONDS)  # how often files are looked at, and at what age they go
    with gradio.Blocks(title="keras_robust", analytics_enabled=False, delete_cache=kept) as blocks:
        gradio.Markdown(
            "# Attack a photograph\n"
            "A model classifies the photograph; then an attack looks for another image, within the radius, that it "
            "takes for something else. An attack that finds none proves nothing about stronger ones."
        )
        with gradio.Row():
            with gradio.Column(scale=1):
                photo = gradio.Image(
                    type="filepath",  # so that this package reads it, within its bounds
                    image_mode=None,
                    label="Photograph",
                    sources=["upload", "clipboard"],
                    height=240,
                )
                norm = gradio.Dropdown(list(LARGEST), value="Linf", label="Norm of the threat model")
                eps = gradio.Number(
                    value=_shown(attack, "Linf"),
                    label="Radius (Linf: grey levels of 255; L2, L1: pixels in [0, 1])",
                    minimum=0,
                )
                button = gradio.Button("Attack", variant="primary")
                if examples:
                    gradio.Examples([[str(path)] for path in examples], [photo], label="Photographs")
            outputs = []
            for name in attack.models:
                with gradio.Column(scale=2):
                    gradio.Markdown(f"### {name}")
                    outputs.append(gradio.Markdown())
                    with gradio.Row():
                        outputs += [gradio.Label(label="Before"), gradio.Label(label="After")]
                    with gradio.Row():
                        outputs += [
                            gradio.Image(
                                label=label, format="png", interactive=False, height=200, min_width=120, buttons=[]
                            )
                            for label in ("Photograph", "Adversarial", "Difference, amplified")
                        ]

        def answer(photo: str | None, norm: str, radius: float) -> list[Any]:
            if photo is None:
                raise gradio.Error("Choose a photograph first.")
            if norm not in LARGEST or not isinstance(radius, (int, float)):
                raise gradio.Error(f"The norm must be one of {', '.join(LARGEST)}, the radius a number.")
            try:
                found = attack(photo, norm, radius / 255 if norm == "Linf" else radius)
            except ValueError as error:
                raise gradio.Error(str(error)) from error
            cells: list[Any] = []
            for one in found.values():
                said = f"Now taken for **{next(iter(one.after))}**" if one.misclassified else "**The answer stays**"
                size = f"{one.norm * 255:.4g}/255" if norm == "Linf" else f"{one.norm:.4g}"
                cells += [f"{said}; {norm} of the change: {size}", one.before, one.after]
                cells += [_enlarged(picture) for picture in (one.image, one.adversarial, one.difference)]
            return cells

        button.click(answer, [photo, norm, eps], outputs, api_name="attack", concurrency_limit=1)
        norm.change(lambda norm: _shown(attack, norm), norm, eps, api_visibility="private")
    blocks.queue(max_size=MOST_WAITING, default_concurrency_limit=1)
    return blocks


def launch(
    blocks: Any, host: str = "127.0.0.1", port: int | None = None, most_bytes: int = MOST_BYTES, **options: Any
) -> Any:
    """Serve the page: to this machine alone unless `host` says otherwise, with nothing loaded from elsewhere.

    Args:
        blocks: of `page`.
        host, port: to listen at; the first free port from 7860 on if not given.
        most_bytes: size of an uploaded file.
        options: of `gradio.Blocks.launch`, as `prevent_thread_lock=True`.
    """
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
    return blocks.launch(
        server_name=host,
        server_port=port,
        share=False,
        max_file_size=most_bytes,
        theme=gradio_module().themes.Default(**fonts),
        footer_links=[],
        enable_monitoring=False,
        **options,
    )


def bundled_photos(folder: str | PathLike, resolution: int) -> list[Path]:
    """Crops of the bundled photographs as PNG files, one of each class, to try the page with."""
    from PIL import Image

    from keras_robust.data.sources.photo_crops import photo_crops

    crops = photo_crops("val", per_class=1)
    paths = []
    for i, name in enumerate(crops.class_names):
        path = Path(folder) / f"{name}.png"
        Image.fromarray(resize_and_crop(crops.image(i), max(resolution, 64), 1.0)).save(path)
        paths.append(path)
    return paths


def gradio_module() -> Any:
    """Gradio, which neither asks for a new version nor counts its users."""
    import os

    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError as error:
        raise ImportError("the demo needs gradio: pip install 'keras-robust[demo]'") from error
    return gradio


def _shown(attack: PhotoAttack, norm: str) -> float:
    """The usual radius in the units of the page."""
    return round(attack.usual(norm) * (255 if norm == "Linf" else 1), 4)


def _enlarged(picture: np.ndarray) -> np.ndarray:
    """A small picture with squares for pixels, large enough to be looked at."""
    times = max(1, SHOWN_PIXELS // len(picture))
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def _bytes(x: np.ndarray) -> np.ndarray:
    return np.round(x[0] * 255).clip(0, 255).astype(np.uint8)
