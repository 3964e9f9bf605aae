"""Robust segmentation of street scenes (CamVid), and what a robust backbone is worth to it.

    python recipes/camvid.py --data camvid-320x240.tar --backbone runs/robust/best.keras --out runs/camvid
    python recipes/camvid.py --smoke --out runs/smoke

One segmentation model, UPerNet on the `convnext_atto_convstem`, is trained for the same number of epochs in three
ways: `clean`; `adversarial` from random weights; `robust-backbone`, adversarially from the weights of a robust
classifier (PIR-AT: Croce, Singh and Hein, "Towards Reliable Evaluation and Fast Training of Robust Semantic
Segmentation Models", 2024). The training attack is theirs: PGD of 5 steps of 0.01 under Linf 4/255, from the image
itself. Each is evaluated by SEA on the test set at 2, 4 and 8/255; `table.md` says mean IoU and pixel accuracy with
95 % intervals over the images, by seed.

The robust classifier is a file of `convnext_atto_convstem` on raw pixels that `kr.weights.load` reads: the
`best.keras` of `keras-robust train convnext_atto_convstem` or `make quickstart`. Without `--backbone` the third way is
left out.

A way that is done is not trained again, an evaluation goes on where it was stopped. CamVid comes as `train/*.jpg` with
`trainannot/*.png` (class 11 unlabelled), in a folder or a tar; `--smoke` draws its own scenes.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_robust as kr
from keras_robust.files import written_aside

NAME = "upernet_convnext_atto_convstem"
# What decides a trained model, beside its way and seed.
SETTINGS = ("data", "backbone", "size", "epochs", "batch_size", "learning_rate", "smoke")
WAYS = ("clean", "adversarial", "robust-backbone")
TRAINING = kr.ThreatModel("Linf", 4 / 255)
THREATS = [kr.ThreatModel("Linf", eps / 255) for eps in (2, 4, 8)]


def scenes(count: int, seed: int) -> Any:
    """Drawn scenes for `--smoke`: ground, sky and boxes of three more classes; pairs of image and mask."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        mask = np.zeros((60, 80), np.int32)
        mask[rng.integers(20, 40) :] = 3
        for label in (1, 5, 8):
            top, left = rng.integers(5, 45), rng.integers(0, 60)
            mask[top : top + 15, left : left + 18] = label
        colours = np.random.default_rng(0).uniform(30, 225, (11, 3))
        image = colours[mask] + rng.normal(0, 8, (*mask.shape, 3))
        pairs.append((image.clip(0, 255).astype(np.uint8), np.where(rng.random(mask.shape) < 0.02, -1, mask)))
    return pairs


def train(way: str, pairs: Any, arguments: argparse.Namespace, seed: int, path: Path) -> keras.Model:
    """The model trained in one way, from its file where there is one of the same settings."""
    settings = {name: str(getattr(arguments, name)) for name in SETTINGS}
    told = path.with_suffix(".json")
    if path.is_file():
        if not told.is_file() or json.loads(told.read_text()) != settings:
            raise SystemExit(f"{path} was trained with other settings ({told}); take another --out or remove it")
        return keras.saving.load_model(path)
    keras.utils.set_random_seed(seed)
    net = kr.segmentation.create(NAME, num_classes=11, drop_path_rate=0.1, layer_scale_init=0.1)
    if way == "robust-backbone":
        kr.segmentation.load_backbone(net, arguments.backbone, stated=True)
    attack = None
    if way != "clean":
        attack = kr.attacks.PGD(TRAINING, n_iter=5, step_size=0.01, returns="last")
    batches = kr.segmentation.MaskBatches(pairs, arguments.size, arguments.batch_size, seed=seed)
    loss = kr.segmentation.PixelCrossEntropy()
    quick = kr.attacks.PGD(TRAINING, n_iter=1, returns="misclassified")  # nobody looks at validation
    trainer = kr.AdversarialModel(
        kr.segmentation.with_auxiliary_head(net), attack, validation_attack=quick, objective=loss, seed=seed
    )
    steps = len(batches)
    rate = kr.training.WarmupPolynomial(
        arguments.learning_rate, epochs=arguments.epochs, steps_per_epoch=steps, warmup_epochs=arguments.epochs // 5
    )
    trainer.compile(kr.training.adamw(trainer.model, rate, weight_decay=0.01, betas=(0.9, 0.999)), loss)
    trainer.fit(batches, epochs=arguments.epochs, verbose=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    told.write_text(json.dumps(settings, indent=1) + "\n")
    with written_aside(path) as aside:
        net.save(aside)
    return net


def table(found: dict[tuple[int, str], kr.segmentation.SegmentationReport]) -> str:
    """A row for each way and seed: mean IoU and pixel accuracy, in %, with 95 % intervals over the images."""
    columns = ["clean", *map(str, THREATS)]
    lines = ["| way | seed | " + " | ".join(f"{column}: mIoU; pixels" for column in columns) + " |"]
    lines.append("| --- | --- |" + " --- |" * len(columns))
    for (seed, way), report in found.items():
        cells = []
        pairs = [(report.clean, report.clean), *((t.worst_for_iou, t.worst_for_accuracy) for t in report.threats)]
        for for_iou, for_accuracy in pairs:
            low, high = for_iou.interval("mean_iou")
            left, right = for_accuracy.interval("pixel_accuracy")
            cells.append(
                f"{100 * for_iou.mean_iou():.1f} ({100 * low:.1f}-{100 * high:.1f}); "
                f"{100 * for_accuracy.pixel_accuracy():.1f} ({100 * left:.1f}-{100 * right:.1f})"
            )
        lines.append(f"| {way} | {seed} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="CamVid, a folder or a tar archive")
    parser.add_argument("--backbone", type=Path, help="weights of a robust convnext_atto_convstem")
    parser.add_argument("--out", type=Path, required=True, help="folder for models, evaluations and the table")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="which of the trainings")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the trainings")
    parser.add_argument("--size", nargs=2, type=int, default=(96, 128), help="height and width, in pixels")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--n-iter", type=int, default=300, help="gradient steps of each attack of SEA")
    parser.add_argument("--n-examples", type=int, help="test images to evaluate, evenly spaced; all by default")
    parser.add_argument("--smoke", action="store_true", help="the whole way in miniature, on drawn scenes")
    arguments = parser.parse_args(given)
    if arguments.smoke:
        arguments.size, arguments.epochs, arguments.batch_size, arguments.n_iter = (32, 48), 2, 4, 3
        pairs, test = scenes(8, seed=0), scenes(4, seed=1)
        names = None
    elif arguments.data is None:
        parser.error("--data must be CamVid, a folder or a tar archive (or --smoke)")
    else:
        source = kr.segmentation.source(arguments.data, "train")
        pairs, names = [source[i] for i in range(len(source))], source.class_names  # 85 MB
        test = kr.segmentation.source(arguments.data, "test")
    rows = np.linspace(0, len(test) - 1, min(arguments.n_examples or len(test), len(test))).round().astype(int)
    resized = [kr.segmentation.sources.resized(*test[int(row)], tuple(arguments.size)) for row in rows]
    x, y = np.stack([image for image, _ in resized]), np.stack([mask for _, mask in resized])
    ways = [way for way in WAYS if way in arguments.ways and (way != "robust-backbone" or arguments.backbone)]
    found = {}
    for seed in arguments.seeds:
        for way in ways:
            folder = arguments.out / f"{way}-{seed}"
            model = train(way, pairs, arguments, seed, folder / "model.keras")
            report = kr.segmentation.evaluate(
                model, x, y, THREATS, n_iter=arguments.n_iter, class_names=names, out=folder / "sea"
            )
            found[seed, way] = report
            print(table(found), flush=True)
    (arguments.out / "table.md").write_text(table(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
