"""RobustBench's ImageNet board, evaluated by this package: any published checkpoint, on the board's 5,000 images.

    python recipes/robustbench.py Singh2023Revisiting_ConvNeXt-T-ConvStem --data imagenet/val
    python recipes/robustbench.py --max-parameters 30 --data imagenet/val --out runs/board
    python recipes/robustbench.py swin_base_300ep --data imagenet/val --shard $SLURM_ARRAY_TASK_ID/8    # 1/8 to 8/8
    python recipes/robustbench.py swin_base_300ep --data imagenet/val --merge                           # afterwards

Names are those of `keras-robust models --published`; without any, all that can be had by name and are small enough. The
weights are downloaded once (or taken from the folder that KERAS_ROBUST_WEIGHTS names), the images are your own: the
folder of ImageNet's validation images in class folders. Preprocessing, normalisation, resolution and radius are the
preset's. The same command goes on where it was stopped.

It writes, in a folder per checkpoint, what `keras-robust evaluate` writes, and robustbench.json, the entry in
RobustBench's form; and prints the differences to the published figures.

Expected: the published figures, which are of the same images under the same attacks, to a few images. No figures
stand here: nobody has run it on the real weights with this package yet.

Cost: AutoAttack's standard version on 5,000 images of 224 px, hours on a GPU for a model of ConvNeXt-T's size.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def arguments(given=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="presets, by their own names or RobustBench's")
    parser.add_argument("--data", required=True, help="the validation images, as in keras-robust evaluate")
    parser.add_argument("--out", type=Path, default=Path("runs/robustbench"), help="(default: runs/robustbench)")
    parser.add_argument("--max-parameters", type=float, metavar="M", help="without names: at most so many, in 10^6")
    parser.add_argument("--attack", default="standard", help="standard, short, plus or rand (default: standard)")
    parser.add_argument("--image-list", help="file of images to use, or `all` (default: RobustBench's 5,000)")
    parser.add_argument("--n-examples", type=int, help="how many of them (default: all)")
    parser.add_argument("--classes", type=Path, help="names of the 1,000 outputs, where the data have fewer classes")
    parser.add_argument("--batch-size", type=int, default=128, help="images attacked at a time (default: 128)")
    parser.add_argument("--shard", metavar="I/N", help="only the I-th of N parts, from 1")
    parser.add_argument("--merge", action="store_true", help="only make the reports, when all shards are done")
    return parser.parse_args(given)


def main(options):
    """Evaluates one checkpoint after another; returns how many could not be."""
    import keras_robust as kr

    names = options.names or on_the_board(options.max_parameters)
    for name in names:
        kr.models.preset(name, buildable=True)  # before hours are spent on others
    failed = {}
    for name in names:
        print(f"\n{name}", flush=True)
        try:
            folder = options.out / name
            report = kr.evaluation.merge([folder], folder) if options.merge else run(name, options)
        except (ValueError, OSError) as error:
            if len(names) == 1:
                raise
            failed[name] = " ".join(str(error).split())
            print(failed[name], file=sys.stderr)
            continue
        if report is None:
            print(f"shard {options.shard} is done")
            continue
        entry = kr.evaluation.robustbench.entry(report, name)
        (options.out / name / "robustbench.json").write_text(json.dumps(entry, indent=2) + "\n")
        print(kr.evaluation.robustbench.comparison(report, name))
    if failed:
        print(f"\n{len(failed)} of {len(names)} could not be evaluated: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


def on_the_board(max_parameters):
    """The checkpoints of RobustBench that can be had by name, the best first."""
    import keras_robust as kr

    rows = [(row[0], kr.models.preset(row[0])) for row in kr.models.published(max_parameters).rows]
    known = kr.models.names()
    return [
        row.robustbench
        for name, row in rows
        if row.robustbench and row.architecture in known and (row.file or kr.models.mirrored(name))
    ]


def run(name, options):
    import keras_robust as kr
    from keras_robust.cli.evaluate import shard

    preset, robustbench = kr.models.preset(name), kr.evaluation.robustbench
    image_list = {None: robustbench.IMAGE_LIST, "all": None}.get(options.image_list, options.image_list)
    return kr.evaluation.evaluate(
        kr.models.from_preset(name),
        kr.evaluation.open_dataset(options.data),
        [kr.ThreatModel(*preset.threat)],
        [preset.preprocessing.resolution],
        options.attack,
        options.n_examples,
        out=options.out / name,
        name=name,
        batch_size=options.batch_size,
        class_names=options.classes,
        image_list=image_list,
        shard=None if options.shard is None else shard(options.shard),
    )


if __name__ == "__main__":
    options = arguments()
    try:
        sys.exit(1 if main(options) else 0)
    except (ValueError, OSError, ImportError) as error:
        print(f"robustbench.py: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
