"""Train a published robust segmentation model, from a robust classifier, and evaluate it by SEA.

    python recipes/segmentation.py --list
    python recipes/segmentation.py voc_tiny --data VOCdevkit/VOC2012 --backbone convnext_tiny_cvst_robust.pt --out voc
    python recipes/segmentation.py ade20k_small --data ADEChallengeData2016 --backbone robust/best.keras --out ade
    python recipes/segmentation.py voc_tiny --smoke --out runs/smoke     # a minute, on drawn scenes

Croce, Singh and Hein (2024): adversarial training of a UPerNet from a robust ImageNet backbone (PIR-AT), PGD of 5 steps
under Linf 4/255. The backbone is a file with the weights of the model's ConvNeXt + ConvStem on raw pixels:
`convnext_tiny_convstem` and `convnext_small_convstem` of `kr.models.presets()`, or a run of `keras-robust train`. Data
come as folders or tar archives in their usual layouts; of VOC the list ImageSets/Segmentation/trainaug.txt with the
further masks in SegmentationClass, or another one by --split. The same command goes on with an interrupted run.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_robust.cli.command import CommandParser, run

SMOKE = {"model": "upernet_convnext_atto_convstem", "size": (32, 48), "epochs": 2, "warmup_epochs": 1, "batch_size": 4}


def train(options: Any) -> None:
    import numpy as np

    import keras_robust as kr
    from keras_robust.segmentation import published_runs

    if options.list:
        print(published_runs.table())
        return
    if options.name is None:
        raise ValueError(f"name must be one of {', '.join(published_runs.PUBLISHED)}; --list shows them.")
    row = kr.segmentation.published(options.name)
    recipe, split, names = row.recipe, options.split or row.split, None
    if options.smoke:
        rng = np.random.default_rng(0)
        masks = rng.integers(0, 4, (8, 4, 6)).repeat(10, 1).repeat(10, 2).astype("int32")
        training = test = [((60 * mask[..., None] + np.arange(3)).astype("uint8"), mask) for mask in masks]
        recipe, options.n_iter = replace(recipe, **SMOKE), 3
    elif options.data is None or options.out is None:
        raise ValueError("data must be given: the folder or archive of the data set, and that of the run.")
    else:
        training = kr.segmentation.source(options.data, split, row.layout)
        test = kr.segmentation.source(options.data, "val", row.layout)
        names = test.class_names
    if options.backbone is None and not options.smoke:
        print(
            "warning: without --backbone training begins at random weights, not as published",
            file=sys.stderr,
        )
    out = options.out or Path("runs") / f"{options.name}_smoke"
    model = kr.segmentation.train(recipe, training, out, options.backbone)
    rows = np.linspace(0, len(test) - 1, min(options.n_examples or len(test), len(test))).round().astype(int)
    pairs = [kr.segmentation.sources.resized_and_cropped(*test[int(row)], recipe.size) for row in rows]
    report = kr.segmentation.evaluate(
        model,
        np.stack([image for image, _ in pairs]),
        np.stack([mask for _, mask in pairs]),
        [kr.ThreatModel("Linf", eps / 255) for eps in (4, 8)],
        options.n_iter,
        class_names=names,
        out=out / "sea",
    )
    print(report.table())
    clean, four, eight = row.mean_iou
    print(f"Published mean IoU of {options.name}: clean {clean}, SEA at 4/255 {four}, at 8/255 {eight}.")


def parser() -> CommandParser:
    parser = CommandParser("segmentation", __doc__)
    parser.prog = "segmentation.py"
    parser.add_argument("name", metavar="NAME", nargs="?", help="which of the runs")
    parser.add_argument("--list", action="store_true", help="show all runs, with published figures and cost")
    parser.add_argument("--data", type=Path, help="the data set, a folder or a tar archive")
    parser.add_argument("--split", help="of the training images (default: the run's)")
    parser.add_argument("--backbone", type=Path, help="weights of a robust classifier to start from")
    parser.add_argument("--out", type=Path, help="folder of the run; the same continues it")
    parser.add_argument("--n-iter", type=int, default=300, help="gradient steps of each attack of SEA (default: 300)")
    parser.add_argument("--n-examples", type=int, help="validation images to attack, evenly spaced (default: all)")
    parser.add_argument("--smoke", action="store_true", help="the whole way in a minute, on drawn scenes")
    parser.add_backend()
    return parser


def main(arguments: list[str] | None = None) -> int:
    own, goes_on = parser(), "; the same command goes on from here"
    return run(own, train, own.parse_args(arguments), {"data": "--data and --out", "name": "NAME"}, goes_on)


if __name__ == "__main__":
    sys.exit(main())
