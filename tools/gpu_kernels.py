"""Time the operations that a model's step consists of, each in the ways that a framework has for it, on a GPU.

For the shapes of ConvNeXt-T (depthwise convolution, layer norm) and ViT-S (attention) at 224 px: forward, and both
gradients. What is quicker at equal numerics belongs into keras_robust/backend. Without a GPU it runs on the CPU.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

# Height, width and channels of the maps of ConvNeXt-T's stages; tokens, heads and channels of a head of ViT-S.
MAPS = ((56, 56, 96), (28, 28, 192), (14, 14, 384), (7, 7, 768))
TOKENS = (197, 6, 64)
ROUNDS = 5


def jax_cases(batch, maps, tokens, side):
    """(operation, variant, function, shapes of its arguments)"""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    import jax
    from keras import ops

    from keras_robust.backend import keras_kernels
    from keras_robust.backend.jax import kernels

    def convolution(x, kernel):
        return ops.depthwise_conv(x, kernel[..., None], padding="same", data_format="channels_last")

    for size in maps:
        shapes = ((batch, *size), (7, 7, size[-1]))
        yield "depthwise 7x7", "convolution", convolution, shapes
        yield "depthwise 7x7", "shifted products", kernels._depthwise, shapes
    shapes = ((batch, *tokens),) * 3
    yield "attention", "einsum", keras_kernels.attention, shapes
    for name in ("xla", "cudnn"):
        yield (
            "attention",
            name,
            lambda q, k, v, name=name: jax.nn.dot_product_attention(q, k, v, implementation=name),
            shapes,
        )


def torch_cases(batch, maps, tokens, side):
    os.environ["KERAS_BACKEND"] = "torch"
    import torch
    from torch.nn import functional

    from keras_robust.backend import keras_kernels
    from keras_robust.backend.torch import kernels

    def channels_first(x, kernel):
        return functional.conv2d(x, kernel, padding=3, groups=len(kernel))

    def wide_norm(x, gamma):
        return functional.layer_norm(x.float(), gamma.shape, gamma.float()).to(x.dtype)

    def norm(x, gamma):
        return functional.layer_norm(x, gamma.shape, gamma)

    yield "matrix product", "the card's ceiling", torch.matmul, ((side, side),) * 2
    for height, width, channels in maps:
        x = (batch, height, width, channels)
        yield "depthwise 7x7", "channels last", kernels.depthwise, (x, (7, 7, channels, 1))
        yield "depthwise 7x7", "channels first", channels_first, ((batch, channels, height, width), (channels, 1, 7, 7))
        yield "layer norm", "in float32", wide_norm, (x, (channels,))
        yield "layer norm", "in 16 bits", norm, (x, (channels,))
        yield "layer norm", "in float32, compiled", torch.compile(wide_norm), (x, (channels,))
    yield "attention", "einsum", keras_kernels.attention, ((batch, *tokens),) * 3
    yield "attention", "fused", kernels.attention, ((batch, *tokens),) * 3


def jax_work(function, shapes):
    """Functions without arguments: a forward pass, both passes, and waiting for them."""
    import jax
    import jax.numpy as jnp

    arguments = [jax.random.normal(jax.random.key(i), shape, jnp.bfloat16) for i, shape in enumerate(shapes)]
    upstream = jax.random.normal(jax.random.key(9), jax.eval_shape(function, *arguments).shape, jnp.bfloat16)
    forward, both = jax.jit(function), jax.jit(lambda upstream, *given: jax.vjp(function, *given)[1](upstream))
    return lambda: forward(*arguments), lambda: both(upstream, *arguments), jax.block_until_ready


def torch_work(function, shapes):
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    arguments = [torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True) for shape in shapes]
    upstream = torch.randn_like(function(*arguments))

    def wait(_):
        if device == "cuda":
            torch.cuda.synchronize()

    def forward():
        with torch.no_grad():
            return function(*arguments)

    return forward, lambda: torch.autograd.grad(function(*arguments), arguments, upstream), wait


def milliseconds(run, wait, calls):
    """Of one call: the median over rounds of `calls` calls, after two that do not count."""
    times = []
    for round in range(ROUNDS + 1):
        start = time.perf_counter()
        for _ in range(calls if round else 2):
            result = run()
        wait(result)
        times.append((time.perf_counter() - start) / calls)
    return 1000 * statistics.median(times[1:])


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("jax", "torch"), required=True)
    parser.add_argument("--batch", type=int, default=80, help="(%(default)s)")
    parser.add_argument("--calls", type=int, default=20, help="calls between two looks at the clock (%(default)s)")
    parser.add_argument("--tiny", action="store_true", help="small maps, to try the script out")
    parser.add_argument("--json", type=Path, metavar="OUT", help="file for the times")
    options = parser.parse_args(arguments)
    sizes = (((4, 4, 8),), (5, 2, 8), 16) if options.tiny else (MAPS, TOKENS, 8192)
    cases, work = {"jax": (jax_cases, jax_work), "torch": (torch_cases, torch_work)}[options.backend]
    rows = []
    for operation, variant, function, shapes in cases(options.batch, *sizes):
        row = {"backend": options.backend, "operation": operation, "variant": variant, "shape": list(shapes[0])}
        try:
            forward, both, wait = work(function, shapes)
            row["forward_ms"] = milliseconds(forward, wait, options.calls)
            row["both_ms"] = milliseconds(both, wait, options.calls)
            times = f"{row['forward_ms']:9.3f} ms {row['both_ms']:9.3f} ms"
        except Exception as error:  # a way that this device or these shapes do not have
            row["missing"] = times = f"{type(error).__name__}: {str(error)[:200]}"
        rows.append(row)
        print(f"{options.backend} {operation:<14} {variant:<22} {shapes[0]!s:<20} {times}", flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
