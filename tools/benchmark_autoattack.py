"""AutoAttack against the reference implementation (PyPI: pyautoattack, on PyTorch): accuracies and time.

Same net, images, threat model and cores; each implementation in a process of its own, one after the other. On the CPU,
or with --device gpu on one GPU, both in float32: without TF32, whose products have 10 bits, unless --tf32 is given.
CPU time leaves out what else the machine does, wall time includes it. Compilation is part of our time, as it is of a
user's; the cores are divided as tools/evaluate.py divides them. On a GPU our evaluation runs a second time, compiled.
"""

import argparse
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

from timing import environment

EXAMPLES = """\
examples:
  python tools/benchmark_autoattack.py --net cifar10-resnet2b --norm Linf --eps 4/255
  python tools/benchmark_autoattack.py --net mnist-madrycnn-tiny --norm L1 --eps 10 --images 200 --threads 2
  python tools/benchmark_autoattack.py --net convnext_atto_convstem --resolution 64 --images 16 --version short

Nets: the published ones of tests/published_nets.py (their files are looked for in KERAS_ROBUST_SHARED_DATA, by default
../shared/data), or a name of kr.models.names() that tools/plain_pytorch.py has too: with the same random weights
in both, and labels that are its predictions.
"""
ROOT = Path(__file__).resolve().parents[1]


def images(settings):
    """Images (n, height, width, channels) in [0, 1] and classes, the same for both."""
    import numpy as np

    sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
    from tests import published_nets

    if settings["net"] in published_nets.NETS:
        return published_nets.images(settings["net"], settings["images"])
    rng = np.random.default_rng(0)
    side = settings["resolution"]
    return rng.random((settings["images"], side, side, 3), dtype="float32"), None


def ours(settings, connection):
    """AutoAttack of keras_robust: accuracies after each attack and seconds of each."""
    os.environ["KERAS_BACKEND"] = settings["backend"]
    x, y = images(settings)
    choose_precision(settings["backend"], settings["tf32"])
    import keras

    import keras_robust as kr
    from keras_robust.attacks.batching import divide_cores
    from tests import published_nets

    divide_cores(settings["batch"])
    if settings["net"] in published_nets.NETS:
        model = published_nets.keras_net(settings["net"])
    else:
        keras.utils.set_random_seed(0)
        model = kr.models.create(settings["net"], num_classes=10, input_size=settings["resolution"])
        y = keras.ops.convert_to_numpy(model(keras.ops.convert_to_tensor(x))).argmax(1)
        kr.weights.save(model, settings["weights"])
    attack = kr.attacks.AutoAttack(
        kr.ThreatModel(settings["norm"], settings["eps"]), settings["version"], settings["batch"], settings["seed"]
    )
    result, seconds = timed(lambda: attack(model, x, y))
    if settings["device"] == "gpu":
        seconds["seconds_compiled"] = timed(lambda: attack(model, x, y))[1]["seconds"]
    connection.send({"accuracy_after": result.accuracy_after, **seconds, "warnings": list(result.warnings)})


def reference(settings, connection):
    """The reference implementation on the same."""
    os.environ["KERAS_BACKEND"] = "torch"
    x, y = images(settings)
    choose_precision("torch", settings["tf32"])
    import torch
    from pyautoattack.autoattack import AutoAttack

    from tests import published_nets

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    x = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    if settings["net"] in published_nets.NETS:
        net = published_nets.torch_net(settings["net"])
    else:
        import plain_pytorch
        from safetensors.torch import load_file

        from keras_robust.models.registry import architecture

        net = plain_pytorch.create(architecture(settings["net"]), 10, settings["resolution"]).eval()
        shapes = {name: tensor.shape for name, tensor in net.state_dict().items()}
        # Dense layers on maps are convolutions of one pixel in checkpoints.
        net.load_state_dict({n: tensor.reshape(shapes[n]) for n, tensor in load_file(settings["weights"]).items()})
        with torch.no_grad():
            y = net(x).argmax(1).numpy()
    device = "cuda" if settings["device"] == "gpu" and torch.cuda.is_available() else "cpu"
    net, x = net.to(device), x.to(device)
    accuracies = {}

    class Accuracies(logging.Handler):
        def emit(self, record):
            words = record.getMessage().split()
            if words[:2] == ["initial", "accuracy:"]:
                accuracies["clean"] = float(words[2].rstrip("%")) / 100
            elif words[:3] == ["robust", "accuracy", "after"]:
                accuracies[words[3].rstrip(":").lower()] = float(words[4].rstrip("%")) / 100

    logger = logging.getLogger("auto-attack")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(Accuracies())
    logger.propagate = False
    kind = settings["version"] if settings["version"] != "short" else "standard"
    options = {"norm": settings["norm"], "eps": settings["eps"], "seed": settings["seed"], "version": kind}
    attack = AutoAttack(net, device=torch.device(device), **options)
    if settings["version"] == "short":
        attack.attacks_to_run = ["apgd-ce", "apgd-t"]
    labels = torch.from_numpy(y).long().to(device)
    _, seconds = timed(lambda: attack.run_standard_evaluation(x, labels, batch_size=settings["batch"]))
    connection.send({"accuracy_after": accuracies, **seconds})


def choose_precision(backend, tf32):
    """Products of float32 in full precision or, on GPUs that have it, in TF32."""
    if backend == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if tf32 else "highest")
    elif backend == "torch":
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    else:
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(tf32)


def timed(function):
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return result, {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def work(function, settings, connection):
    if settings["device"] == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if hasattr(os, "sched_setaffinity"):
        # Before a framework counts the cores.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings["threads"]])
    function(settings, connection)


def run(function, settings):
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(function, settings, there), daemon=True)
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        raise RuntimeError(f"the process of {function.__name__!r} died (see above)") from None
    finally:
        process.join()


def radius(text):
    parts = [float(part) for part in text.split("/")]
    if len(parts) > 2 or parts[0] < 0 or (len(parts) == 2 and parts[1] <= 0):
        raise ValueError
    return parts[0] / parts[1] if len(parts) == 2 else parts[0]


radius.__name__ = "radius such as 0.5 or 4/255"


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", default="cifar10-resnet2b", help="(%(default)s)")
    parser.add_argument("--norm", choices=("Linf", "L2", "L1"), default="Linf", help="(%(default)s)")
    parser.add_argument("--eps", type=radius, default=4 / 255, help="radius, e.g. 0.5 or 4/255 (4/255)")
    parser.add_argument("--version", choices=("standard", "short", "plus"), default="standard", help="(%(default)s)")
    parser.add_argument("--images", type=int, default=50, help="number of images (%(default)s)")
    parser.add_argument("--resolution", type=int, default=64, help="of a net that is not a published one (%(default)s)")
    parser.add_argument("--batch", type=int, default=250, help="batch size of both (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="cores, Linux only (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="(%(default)s)")
    parser.add_argument("--tf32", action="store_true", help="on a GPU: products in TF32, in both")
    parser.add_argument("--seed", type=int, default=0, help="of both (%(default)s)")
    parser.add_argument(
        "--backend", choices=("tensorflow", "jax", "torch"), default="tensorflow", help="of Keras (%(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="file to which a line of JSON is added")
    return parser, vars(parser.parse_args(arguments))


def main(arguments=None):
    with tempfile.TemporaryDirectory() as folder:
        compare(*parse(arguments), Path(folder))


def compare(parser, settings, folder):
    """Both on the same, and what they found; `folder` is for the weights of a net that has none yet."""
    out = settings.pop("json")
    record = dict(settings)
    try:
        packages = ("keras", "torch", "pyautoattack", "tensorflow", "jax")
        record["versions"] = environment(packages, settings["threads"])["versions"]
        for function in (ours, reference):
            with_weights = {**settings, "weights": str(folder / "weights.safetensors")}
            record[function.__name__] = measured = run(function, with_weights)
            figures = ", ".join(f"{name} {100 * value:.1f}" for name, value in measured["accuracy_after"].items())
            times = f"{measured['seconds']:8.1f} s wall{measured['cpu_seconds']:8.1f} s CPU"
            print(f"{function.__name__:<10}{times}   {figures}", flush=True)
    except (ImportError, RuntimeError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    for kind in ("seconds", "cpu_seconds"):
        record[f"ratio_of_{kind}"] = record["ours"][kind] / record["reference"][kind]
    compiled = record["ours"].get("seconds_compiled")
    if compiled is not None:
        record["ratio_of_seconds_compiled"] = compiled / record["reference"]["seconds"]
        print(f"compiled {compiled:.1f} s, {record['ratio_of_seconds_compiled']:.2f} of the reference's wall time")
    print(f"ratio {record['ratio_of_seconds']:.2f} of wall time, {record['ratio_of_cpu_seconds']:.2f} of CPU time")
    if out is not None:
        with out.open("a") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
