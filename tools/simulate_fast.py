"""How far AutoAttack `fast` is from `standard`, how often its interval holds that, and what it spends.

All attacks meet all images of the published nets once, which is what `standard` does; what came of each image is kept
in a folder. From that, samples are drawn again and again, as an evaluation draws its own, with other seeds: each gives
an estimate and an interval to compare with the number that they are of. Nothing is attacked twice.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]
EXAMPLES = """\
examples:
  python tools/simulate_fast.py --net cifar10-resnet2b --threats Linf:2/255 L2:0.5 --results runs/fast
  python tools/simulate_fast.py --results runs/fast                 # what is there, without an attack
  python tools/simulate_fast.py --results runs/fast --nearest 0.1 --probability 0.05

Nets: the published ones of tests/published_nets.py (their files are looked for in KERAS_ROBUST_SHARED_DATA, by default
../shared/data).
"""
BATCH_SIZE = 128  # of an evaluation: samples are drawn batch by batch


def attack(net, threat, options):
    """What becomes of each image under all attacks of `fast` when all images are drawn: arrays by name."""
    import numpy as np

    from keras_robust.attacks.suite import AttackSuite, correctly_classified
    from keras_robust.attacks.versions import PLANS, ensemble
    from tests import published_nets

    model, (x, y) = published_nets.keras_net(net), published_nets.images(net, options.images)
    plan = replace(PLANS["fast"], nearest=1.0)
    suite = AttackSuite(model, threat, ensemble(threat, "fast", options.attack_seed, 10), BATCH_SIZE, plan=plan)
    logits = suite.logits(x)
    found = {"correct": correctly_classified(logits, y)}
    for stage in suite.stages(x, y, logits):
        found[f"broken/{stage.name}"] = stage.misclassified
        found[f"spent/{stage.name}"] = stage.evaluations * suite.attacks[stage.name].propagations(10)
        if stage.name == plan.after:
            found["loss"] = stage.loss
    return {name: np.asarray(array) for name, array in found.items()}


def simulate(cell, plan, repeats, batch_size=BATCH_SIZE):
    """Estimates of the robust accuracy from samples drawn with the seeds 0, 1, ...

    Args:
        cell: what `attack` gives.
        plan: the `SamplingPlan`.
        repeats: number of samples.

    Returns:
        The robust accuracy that is estimated, the estimates, and how many times less each of them spends.
    """
    import numpy as np

    from keras_robust.attacks.sampling import Sample

    names = [name.removeprefix("broken/") for name in cell if name.startswith("broken/")]
    left = cell["correct"] & ~np.any([cell[f"broken/{name}"] for name in plan.beginnings], axis=0)
    robust = cell["correct"] & ~np.any([cell[f"broken/{name}"] for name in names], axis=0)
    n = len(robust)
    # `standard` makes the first runs of an attack once: it spends nothing on them but where it ends there.
    begun = sum(cell[f"spent/{first}"] * ~left for first in plan.beginnings)
    whole = (begun + sum(cell[f"spent/{name}"] for name in names if name not in plan.beginnings)).sum()
    estimates, savings = [], []
    for seed in range(repeats):
        sample = Sample.concatenate(
            [
                plan.draw(cell["loss"][rows], left[rows], seed, np.arange(rows.start, rows.stop, dtype=np.int32))
                for rows in (slice(start, min(start + batch_size, n)) for start in range(0, n, batch_size))
            ]
        )
        met = left & sample.drawn
        estimates.append(sample.estimate(np.where(met, robust, left)))
        spent = sum((cell[f"spent/{name}"] * (met | (name in plan.beginnings))).sum() for name in names)
        savings.append(whole / spent)
    return robust.mean(), estimates, np.array(savings)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", help="to attack (default: none)")
    parser.add_argument("--threats", nargs="+", default=[], metavar="NORM:EPS", help="to attack it within")
    parser.add_argument("--images", type=int, default=1000, help="at most (default: 1000)")
    parser.add_argument("--attack-seed", type=int, default=0, help="of the attacks (default: 0)")
    parser.add_argument("--results", type=Path, required=True, help="folder of what became of each image")
    parser.add_argument("--repeats", type=int, default=200, help="samples drawn (default: 200)")
    parser.add_argument("--nearest", type=float, help="of the plan (default: that of fast)")
    parser.add_argument("--probability", type=float, help="of the plan (default: that of fast)")
    options = parser.parse_args(arguments)
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import numpy as np

    import keras_robust as kr
    from keras_robust.attacks.versions import PLANS

    options.results.mkdir(parents=True, exist_ok=True)
    for text in options.threats:
        path = options.results / f"{options.net} {text.replace('/', ' over ')} seed {options.attack_seed}.npz"
        if not path.exists():
            np.savez(path, **attack(options.net, kr.ThreatModel.parse(text), options))
    given = {name: getattr(options, name) for name in ("nearest", "probability")}
    plan = replace(PLANS["fast"], **{name: value for name, value in given.items() if value is not None})
    print(f"{'':44}{'standard':>9}{'images':>7}{'median error':>13}{'inside':>8}{'length':>8}{'cheaper':>9}")
    errors, inside, ratios = [], [], []
    for path in sorted(options.results.glob("*.npz")):
        with np.load(path, allow_pickle=False) as cell:
            truth, estimates, savings = simulate(dict(cell), plan, options.repeats)
        error = np.array([100 * abs(each.value - truth) for each in estimates])
        ends = np.array([each.interval for each in estimates])
        holds = (ends[:, 0] <= truth + 1e-9) & (truth - 1e-9 <= ends[:, 1])
        errors, inside, ratios = [*errors, *error], [*inside, *holds], [*ratios, *savings]
        length = 100 * np.diff(ends).mean()
        print(
            f"{path.stem:44}{100 * truth:7.1f} %{estimates[0].n:7}{np.median(error):13.2f}{100 * holds.mean():6.1f} %"
            f"{length:8.1f}{savings.mean():8.1f}x"
        )
    if errors:
        near = 100 * np.mean(np.array(errors) <= 0.3)
        print(
            f"{'all':44}{'':16}{np.median(errors):13.2f}{100 * np.mean(inside):6.1f} %{'':8}{np.mean(ratios):8.1f}x\n"
            f"in points; largest error {max(errors):.2f}, within 0.3 points {near:.0f} %, at least {min(ratios):.1f} "
            "times cheaper"
        )


if __name__ == "__main__":
    main()
