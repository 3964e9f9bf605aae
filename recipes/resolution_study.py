"""Does a robust model gain from more pixels at test time? Accuracy against resolution and against multiply-adds.

    python recipes/resolution_study.py --data imagenet/val --image-list robustbench-ids.txt --n-examples 1000 \\
        --models convnext_tiny_300ep=patch.pt convnext_tiny_convstem_300ep=conv.pt
    python recipes/resolution_study.py --models patch.keras conv.keras --data photo_crops --crop-pct 1 \\
        --resolutions 32 40 48 --attack short --n-examples 100
    python recipes/resolution_study.py --smoke    # trains two small models on the bundled photographs: minutes

The same weights, trained at one resolution, are attacked at several, under Linf at 4, 6 and 8/255, ConvStem beside
PatchStem (Singh, Croce and Hein 2023, section 5: robust accuracy goes on rising above the 224 pixels of the training,
at first). A radius of Linf means the same at any resolution.

Cost: one evaluation per model, resolution and radius. With `--attack standard`, 5,000 images of ImageNet and a model of
ConvNeXt-T's size, reckon with hours on a GPU for each; it continues where it was stopped.

It writes report.html (everything, to look at), figure.svg (the curves alone), report.md and, in a folder per model,
the report.json that `keras-robust evaluate compare` reads.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

SMOKE = ("convnext_atto", "convnext_atto_convstem")


def arguments(given=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL",
        help=".keras files, SavedModel folders, presets, or NAME=WEIGHTS of presets and architectures; a name may be "
        "put before a file, as ours:robust.keras",
    )
    parser.add_argument("--num-classes", type=int, default=1000, help="of architectures (default: 1000)")
    parser.add_argument("--data", default="photo_crops", help="as of keras-robust evaluate (default: photo_crops)")
    parser.add_argument("--image-list", type=Path, help="the images to use, <class>/<file> per line")
    parser.add_argument("--classes", type=Path, help="names of the models' outputs, one per line")
    parser.add_argument("--n-examples", type=int, help="how many images (default: all)")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[192, 224, 256, 288, 320, 384], metavar="PIXELS")
    parser.add_argument("--eps", type=float, nargs="+", default=[4, 6, 8], help="radii in 1/255 (default: 4 6 8)")
    parser.add_argument("--attack", default="standard", help="standard, short, plus or rand (default: standard)")
    parser.add_argument("--crop-pct", type=float, help="(default: each model's own, else 0.875)")
    parser.add_argument("--batch-size", type=int, default=128, help="(default: 128)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/resolution_study"))
    parser.add_argument("--smoke", action="store_true", help="small: two models trained here, few images, weak attack")
    options = parser.parse_args(given)
    if not options.models and not options.smoke:
        parser.error("--models (or --smoke) is required")
    return options


def main(options):
    import keras_robust as kr

    threats = [kr.ThreatModel("Linf", eps / 255) for eps in options.eps]
    settings = {
        "n_examples": options.n_examples,
        "seed": options.seed,
        "batch_size": options.batch_size,
        "crop_pct": options.crop_pct,
        "class_names": options.classes,
        "image_list": options.image_list,
    }
    resolutions, attack = options.resolutions, options.attack
    if options.smoke:
        models = {name: train(name) for name in SMOKE}
        attack = [kr.attacks.APGD(threats[0], n_iter=10, returns="misclassified")]
        resolutions = [32, 40, 48, 56]
        settings = {**settings, "n_examples": options.n_examples or 40, "crop_pct": 1.0, "batch_size": 40}
    else:
        models = dict(load(each, options.num_classes) for each in options.models)
    reports = {}
    for name, model in models.items():
        print(f"\n{name}", flush=True)
        out = options.out / name
        reports[name] = kr.evaluation.evaluate(
            model,
            kr.evaluation.open_dataset(options.data),
            threats,
            resolutions,
            attack,
            out=out,
            name=name,
            **settings,
        )
    kr.evaluation.write_figure(reports, options.out / "figure.svg")
    page = kr.evaluation.write_comparison(reports, options.out)
    print(f"\n{kr.evaluation.table(reports)}\n\n{page}")


def load(text, num_classes):
    """A model and its name, of "ours:robust.keras", "robust.keras", "vit_small=weights.pt"."""
    import keras_robust as kr

    name, equals, weights = text.partition("=")
    if equals:
        return name, kr.export.load_model(name, weights, num_classes)
    if text.startswith("hf://"):
        return text.rpartition("/")[2], kr.export.load_model(text)
    name, colon, path = text.partition(":")
    path = path if colon else text
    return name if colon else Path(path).stem, kr.export.load_model(path)


def train(name, per_class=100, resolution=32):
    """A small model, clean for three epochs and then adversarially for two, on crops of the bundled photographs."""
    import keras

    import keras_robust as kr

    keras.utils.set_random_seed(0)
    x, y = kr.data.photo_crops("train", per_class).arrays(resolution, crop_pct=1.0)
    batches = kr.data.OrientedBatches(x, y, 50)
    model = kr.models.create(name, len(kr.data.photo_crops("val", 1).class_names), layer_scale_init=0.1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(2e-3), loss, metrics=["accuracy"])
    print(f"\n{name}: clean, then adversarial training", flush=True)
    model.fit(batches, epochs=3)
    trainer = kr.AdversarialModel(
        model, kr.attacks.APGD(kr.ThreatModel("Linf", 4 / 255), n_iter=2), eps_warmup_steps=20
    )
    trainer.compile(keras.optimizers.AdamW(1e-3), loss, metrics=["accuracy"])
    trainer.fit(batches, epochs=2)
    return model


if __name__ == "__main__":
    options = arguments()
    try:
        main(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"resolution_study.py: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
