"""Minimal-norm attacks of keras_robust, adv-lib and Foolbox on one PyTorch net: optimality and seconds.

AttackBench's measure (Cina et al. 2025): how near an attack's robustness curve comes to the lower envelope of all
attacks, at 2,000 propagations an image (forward and backward passes, each counted as one). All of them see the same
`torch.nn.Module` with NCHW input and the same images; ours sees it through `kr.adapt(module, pixels="0..1")`. Each runs
once to warm up on a few images, then in turns. On the CPU, the Keras backend is PyTorch.
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]
EXAMPLES = """\
examples:
  python tools/benchmark_attacks.py --net cifar10-resnet2b --norm L2
  python tools/benchmark_attacks.py --net mnist-madrycnn-tiny --norm Linf --images 100 --propagations 400

Nets: the published ones of tests/published_nets.py (their files are looked for in KERAS_ROBUST_SHARED_DATA, by default
../shared/data). adv-lib (PyPI: adv-lib) and Foolbox (PyPI: foolbox) take part where they are installed.
"""
NORMS = ("Linf", "L2", "L1", "L0")
ORDERS = {"Linf": float("inf"), "L2": 2, "L1": 1, "L0": 0}
SEARCH_STEPS = 10  # radii of a search
FIRST = {"Linf": 16 / 255, "L2": 1.0, "L1": 10.0}  # radii at which searches begin


class Counter:
    """Forward and backward passes of a module, counted in images."""

    def __init__(self, net):
        import torch

        counter = self
        self.images = 0

        class Counted(torch.nn.Module):
            def forward(self, x):
                counter.images += len(x)
                if x.requires_grad and torch.is_grad_enabled():
                    x.register_hook(counter.backward)
                return net(x)

        self.module = Counted().eval()

    def backward(self, gradient):
        self.images += len(gradient)


def ours(norm, gradients):
    """Name -> function of an adapted model, NHWC images and classes that gives an `AttackResult`."""
    import keras_robust as kr

    attacks = [kr.attacks.FMN(norm, n_iter=gradients)]
    if norm == "L2":
        attacks.append(kr.attacks.DDN(n_iter=gradients))
    if norm == "L0":
        attacks.append(kr.attacks.SigmaZero(n_iter=gradients))
    else:
        threat, n_iter = kr.ThreatModel(norm, FIRST[norm]), max(gradients // SEARCH_STEPS - 1, 3)
        common = {"random_start": True, "returns": "misclassified"}
        apgd = kr.attacks.APGD(threat, n_iter, loss="dlr", **common)
        attacks.append(kr.attacks.RadiusSearch(apgd, SEARCH_STEPS))
    return {f"keras_robust {attack.name}": attack for attack in attacks}


def peers(norm, gradients):
    """Name -> function of a module, NCHW images and classes that gives adversarial images."""
    from tests import peers as installed

    order, found = ORDERS[norm], {}
    try:
        fmn = installed.adv_lib("fast_minimum_norm", "fmn")
        found["adv-lib fmn"] = lambda net, x, y: fmn(net, x, y, order, steps=gradients)
        if norm == "L2":
            ddn = installed.adv_lib("decoupled_direction_norm", "ddn")
            found["adv-lib ddn"] = lambda net, x, y: ddn(net, x, y, steps=gradients, levels=None)
            pdgd = installed.adv_lib("primal_dual_gradient_descent", "pdgd")
            found["adv-lib pdgd"] = lambda net, x, y: pdgd(net, x, y, num_steps=gradients)
        else:
            pdpgd = installed.adv_lib("primal_dual_gradient_descent", "pdpgd")
            found["adv-lib pdpgd"] = lambda net, x, y: pdpgd(net, x, y, order, num_steps=gradients)
        if norm == "L0":
            sigma_zero = installed.adv_lib("sigma_zero", "sigma_zero")
            found["adv-lib sigma-zero"] = lambda net, x, y: sigma_zero(net, x, y, num_steps=gradients)
        else:
            minimal_apgd = installed.adv_lib("auto_pgd", "minimal_apgd")
            n_iter = max(gradients // SEARCH_STEPS - 1, 3)
            found["adv-lib minimal apgd"] = lambda net, x, y: minimal_apgd(
                net, x, y, order, FIRST[norm], binary_search_steps=SEARCH_STEPS, n_iter=n_iter
            )
    except installed.Missing as missing:
        print(missing, file=sys.stderr)
    try:
        foolbox = installed.foolbox()
        kinds = {"Linf": "LInfFMNAttack", "L2": "L2FMNAttack", "L1": "L1FMNAttack", "L0": "L0FMNAttack"}
        attacks = {"foolbox fmn": getattr(foolbox.attacks, kinds[norm])(steps=gradients)}
        if norm == "L2":
            attacks["foolbox ddn"] = foolbox.attacks.DDNAttack(steps=gradients)

        def run(attack, net, x, y):
            model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
            return attack.run(model, x, foolbox.criteria.Misclassification(y))

        for name, attack in attacks.items():
            found[name] = lambda net, x, y, attack=attack: run(attack, net, x, y)
    except installed.Missing as missing:
        print(missing, file=sys.stderr)
    return found


def benchmark(options):
    """Distances, seconds and propagations of every attack, as a dict that `json` writes."""
    import keras
    import numpy as np
    import torch

    import keras_robust as kr
    from keras_robust.statistics import optimality
    from tests import peers as installed
    from tests import published_nets

    torch.set_num_threads(options.threads)
    counter = Counter(published_nets.torch_net(options.net))
    x, y = published_nets.images(options.net, options.images)
    images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        right = counter.module(images).argmax(1).numpy() == y
    x, y, images = x[right], y[right].astype("int64"), images[torch.from_numpy(right)]
    labels = torch.from_numpy(y)
    model = kr.adapt(
        keras.layers.TorchModuleWrapper(counter.module, output_shape=(None, 10)),
        pixels="0..1",
        input_size=x.shape[1],
        channels_first=True,
    )

    def run_ours(attack, n):
        return attack(model, x[:n], y[:n]).x_adv

    def run_peer(attack, n):
        return attack(counter.module, images[:n], labels[:n]).detach().numpy().transpose(0, 2, 3, 1)

    gradients = options.propagations // 2
    attacks = {name: (run_ours, attack) for name, attack in ours(options.norm, gradients).items()}
    attacks.update({name: (run_peer, attack) for name, attack in peers(options.norm, gradients).items()})
    small = {**ours(options.norm, 20), **peers(options.norm, 20)}
    for name, (run, _) in attacks.items():
        run(small[name], 4)
    distances, seconds, propagations = {}, defaultdict(list), {}
    for repeat in range(options.repeats):
        for name, (run, attack) in attacks.items():
            torch.manual_seed(repeat)
            counter.images, started = 0, time.perf_counter()
            points = run(attack, len(x))
            seconds[name].append(time.perf_counter() - started)
            propagations[name] = counter.images / len(x)
            with torch.no_grad():
                answers = counter.module(torch.from_numpy(points.transpose(0, 3, 1, 2).copy())).argmax(1).numpy()
            found = np.where(answers != y, installed.distances(options.norm, points, x), np.inf)
            distances[name] = found if name not in distances else np.minimum(distances[name], found)
            print(f"{name}: {seconds[name][-1]:.1f} s, median {np.median(found):.5g}", file=sys.stderr)
    nearest = np.min(list(distances.values()), axis=0)
    return {
        "net": options.net,
        "norm": options.norm,
        "images": len(x),
        "attacks": {
            name: {
                "optimality": optimality(distances[name], nearest),
                "median": float(np.median(distances[name])),
                "not_found": int(np.isinf(distances[name]).sum()),
                "seconds": min(seconds[name]),
                "propagations": propagations[name],
            }
            for name in attacks
        },
    }


def table(result):
    lines = [
        f"{result['net']}, {result['norm']}, {result['images']} images that are classified correctly",
        f"{'':38}{'optimality':>11}{'median':>10}{'not found':>11}{'seconds':>9}{'propagations':>14}",
    ]
    for name, row in sorted(result["attacks"].items(), key=lambda item: -item[1]["optimality"]):
        lines.append(
            f"{name:38}{row['optimality']:11.4f}{row['median']:10.5g}{row['not_found']:11d}{row['seconds']:9.1f}"
            f"{row['propagations']:14.0f}"
        )
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", default="cifar10-resnet2b", help="(default: cifar10-resnet2b)")
    parser.add_argument("--norm", choices=NORMS, default="L2", help="(default: L2)")
    parser.add_argument("--images", type=int, default=100, help="(default: 100)")
    parser.add_argument("--propagations", type=int, default=2000, help="per image, at most (default: 2000)")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each attack, in turns (default: 1)")
    parser.add_argument("--threads", type=int, default=1, help="(default: 1)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    os.environ.setdefault("KERAS_BACKEND", "torch")
    if os.environ["KERAS_BACKEND"] != "torch":
        parser.error("KERAS_BACKEND must be torch: the nets are modules of PyTorch.")
    result = benchmark(options)
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
