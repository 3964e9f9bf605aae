"""Campaign of kills: a training run is killed (SIGKILL) again and again at random moments until it ends.

The last checkpoint, the history and the exported weights must be those of a run that nothing happened to, to the last
bit, and no file may be left aside.

    KERAS_BACKEND=tensorflow python tools/fuzz_kills.py --kills 30 --out fuzz_kills.json
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

EPOCHS, STEPS = 2, 12


def run(out: str) -> None:
    """The run that is killed: a small net on crops of photographs, a checkpoint at every second step."""
    from keras_robust import models, recipes

    row = replace(models.architecture("convnext_atto"), depths=(1, 1, 1, 1), dims=(8, 8, 16, 16))
    models.register("tiny_convnext", row)
    recipe = recipes.Recipe(
        "kills",
        model=recipes.ModelConfig("tiny_convnext"),
        data=recipes.DataConfig("photo_crops", policy="basic", resolution=32, batch_size=16),
        training=recipes.TrainingConfig(epochs=EPOCHS, steps_per_epoch=STEPS, ema_decay=0.9, precision="float32"),
        attack=recipes.AttackConfig("apgd", n_iter=2),
        evaluation=recipes.EvaluationConfig(n_examples=32, n_iter=2),
        checkpoints=recipes.CheckpointConfig(every_steps=2),
    )
    recipes.train(recipe, out)


def start(folder: Path) -> subprocess.Popen:
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        return subprocess.Popen([sys.executable, __file__, "--run", str(folder)], stdout=log, stderr=subprocess.STDOUT)


def same(folder: Path, whole: Path) -> list[str]:
    """What differs between two runs."""
    from safetensors.numpy import load_file

    wrong = []
    if (folder / "history.json").read_bytes() != (whole / "history.json").read_bytes():
        wrong.append("history.json")
    name = f"checkpoints/step-{EPOCHS * STEPS:09d}.safetensors"
    ours, theirs = load_file(folder / name), load_file(whole / name)
    wrong += [f"{key}" for key in ours.keys() | theirs.keys() if not np.array_equal(ours.get(key), theirs.get(key))]
    wrong += [f"left aside: {path.name}" for path in folder.rglob(".*") if path.is_file()]
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5, help="in all, over as many runs as it takes (default: 5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON of what happened")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(options.run)
        return 0
    draw = random.Random(options.seed)
    runs: list[dict] = []
    kills = 0
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        began = time.monotonic()
        if start(whole).wait() != 0:
            raise RuntimeError((whole.parent / "whole.log").read_text()[-2000:])
        needs = time.monotonic() - began
        while kills < options.kills:
            out, at = Path(folder) / f"run{len(runs)}", []
            while True:
                process = start(out)
                seconds = draw.uniform(0.3, 1.1) * needs
                try:
                    code = process.wait(seconds if kills < options.kills else None)
                    break
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    kills += 1
                    at.append(round(seconds, 1))
            differs = same(out, whole) if code == 0 else ["no end"]
            runs.append({"killed_after_seconds": at, "exit_code": code, "differs": differs})
            print(
                f"run {len(runs)}: killed {len(at)} times, {kills} in all; differs: {differs or 'nothing'}", flush=True
            )
    bad = [each for each in runs if each["differs"] or each["exit_code"]]
    if options.out:
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        options.out.write_text(json.dumps({"backend": backend, "kills": kills, "runs": runs}, indent=1) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
