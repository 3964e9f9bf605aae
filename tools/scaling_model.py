"""Predict how adversarial training scales: step time, all-reduce traffic and input rate from 1 to 1,024 devices.

A model, not a measurement. With b images per device, P parameters and M multiply-adds per image:

  compute     t_c = b * 2 M * passes / sustained       8 passes: 2-step APGD and the update, see kr.recipes.cost
  gradients   g = 4 P bytes, float32, once per update
  all-reduce  t_r = 2 (h - 1) / h * g / link + 2 (n - 1) / n * g / network + 2 log2(devices) * latency
              h devices in a host, n hosts: reduced within the hosts, then between them (ring, in parts)
  step        between max(t_c, t_r), all traffic hidden behind the backward pass, and t_c + t_r, none
  input       images per second and host that decoding and augmentation must reach

What it leaves out: stragglers, shared networks, checkpoints, validation, and everything that keeps a device from its
sustained rate. Give the rates that you have measured.
"""

import argparse
import math
import os
import sys
from dataclasses import dataclass

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras_robust as kr

EXAMPLES = """\
examples:
  python tools/scaling_model.py
  python tools/scaling_model.py --model vit_base_convstem --sustained 150 --link 450 --network 50
  python tools/scaling_model.py --global-batch 640      # the published batch, divided ever further
"""
IMAGENET = 1_281_167  # training images
JPEG_BYTES = 110_000  # of an ImageNet file, on average: 138 GB of training archive


@dataclass(frozen=True)
class Machine:
    """Rates of the hardware: operations per second, bytes per second and direction, seconds, devices in a host."""

    sustained: float
    link: float
    network: float
    latency: float
    per_host: int


def predict(devices, images, parameters, operations, machine):
    """One row of the table, a dict.

    Args:
        devices: how many share each batch; a power of two.
        images: per device and step.
        parameters: of the model.
        operations: floating-point operations of a step per image.
        machine: a `Machine`.
    """
    local = min(devices, machine.per_host)
    hosts = math.ceil(devices / machine.per_host)
    compute = images * operations / machine.sustained
    gradients = 4 * parameters
    within, between = (2 * (count - 1) / count * gradients for count in (local, hosts))
    reduction = within / machine.link + between / machine.network + 2 * math.log2(devices) * machine.latency
    fastest, slowest = max(compute, reduction), compute + reduction
    return {
        "devices": devices,
        "batch": devices * images,
        "compute": compute,
        "sent": within + between,
        "reduction": reduction,
        "step": (fastest, slowest),
        "efficiency": compute / slowest,
        "rate": devices * images / slowest,
        "input": local * images / slowest,
    }


def main(arguments=None):
    options = parse(arguments)
    model = kr.models.create(options.model, num_classes=1000, input_size=options.resolution)
    operations = 2 * options.passes * kr.models.multiply_adds(model, options.resolution)
    parameters = model.count_params()
    machine = Machine(
        options.sustained * 1e12, options.link * 1e9, options.network * 1e9, options.latency * 1e-6, options.per_host
    )
    print(
        f"{options.model}, {options.resolution} px: {parameters:,} parameters, {operations / 1e9:.1f} GFLOP per image "
        f"and step ({options.passes} forward-equivalents); {options.sustained:g} TFLOP/s sustained, {options.link:g} "
        f"GB/s within a host of {options.per_host}, {options.network:g} GB/s between hosts, {options.latency:g} us"
    )
    print()
    names = "devices", "global batch", "compute ms", "all-reduce MB", "all-reduce ms", "step ms", "efficiency at least"
    print("| " + " | ".join((*names, "images/s", "input images/s per host", "MB/s read per host", "epoch")) + " |")
    print("|" + " ---: |" * 11)
    for devices in (2**k for k in range(11)):
        images = options.batch if options.global_batch is None else options.global_batch // devices
        if images == 0 or (options.global_batch or 0) % devices:
            break
        row = predict(devices, images, parameters, operations, machine)
        low, high = (f"{1e3 * seconds:.1f}" for seconds in row["step"])
        cells = [
            f"{devices:,}",
            f"{row['batch']:,}",
            f"{1e3 * row['compute']:.1f}",
            f"{row['sent'] / 1e6:.0f}",
            f"{1e3 * row['reduction']:.2f}",
            low if low == high else f"{low} - {high}",
            f"{row['efficiency']:.1%}",
            f"{row['rate']:,.0f}",
            f"{row['input']:,.0f}",
            f"{row['input'] * JPEG_BYTES / 1e6:,.0f}",
            f"{IMAGENET / row['rate']:,.1f} s",
        ]
        print("| " + " | ".join(cells) + " |")


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="convnext_tiny_convstem")
    parser.add_argument("--resolution", type=positive(int), default=224)
    parser.add_argument("--passes", type=positive(int), default=8, help="forward-equivalents of a step")
    parser.add_argument("--batch", type=positive(int), default=80, help="images per device")
    parser.add_argument("--global-batch", type=positive(int), help="images per step, in place of --batch")
    parser.add_argument("--sustained", type=positive(float), default=100.0, help="TFLOP/s of a device")
    parser.add_argument("--link", type=positive(float), default=300.0, help="GB/s and direction within a host")
    parser.add_argument("--network", type=positive(float), default=25.0, help="GB/s and direction of a host")
    parser.add_argument("--latency", type=positive(float), default=10.0, help="microseconds of a message")
    parser.add_argument("--per-host", type=positive(int), default=8, help="devices in a host")
    options = parser.parse_args(arguments)
    if options.model not in kr.models.names():
        parser.exit(2, f"{parser.prog}: --model must be one of {', '.join(kr.models.names())}\n")
    return options


def positive(kind):
    def read(text):
        value = kind(text)
        if not value > 0 or not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"must be positive; received {text}")
        return value

    return read


if __name__ == "__main__":
    sys.exit(main())
