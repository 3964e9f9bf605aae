"""Measure all that a GPU tells, in minutes, on a bare machine: one with PyTorch and JAX, without Keras or a network.

What is missing there travels as wheels. Where there is a network, once:

    python -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \\
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux2014_x86_64 \\
        -d wheels keras==3.15.1 optree namex pyautoattack

then on the machine, in the same checkout:

    python3 tools/gpu_session.py --wheels wheels --out figures
    python3 tools/gpu_session.py --table figures/gpu.json

The pieces run in turn, most important first, each in a process of its own that ends in time; after each one gpu.json is
written anew, and gpu.log has what they printed. The table is Markdown.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
# Dense bf16, 10^12 operations a second, as the vendor states them. What is not here gets no share of its peak.
PEAKS = {"H200": 989.4, "H100 PCIe": 756.0, "H100": 989.4, "A100": 312.0, "L40S": 362.0, "L4": 121.0, "B200": 2250.0}
# Least time that a piece is begun with, seconds.
LEAST = 20


@dataclass(frozen=True)
class Piece:
    """A command of `tools/` that writes `name`.json, and the most seconds that it gets."""

    name: str
    command: tuple[str, ...]
    limit: int


def step(model, batch, build_limit, limit, *more, suffix=""):
    command = ("benchmark.py", "--device", "gpu", "--model", model, "--resolution", "224", "--batch", str(batch))
    command += ("--repeats", "5", "--steps", "10", "--build-limit", str(build_limit), *more)
    return Piece(f"step-{model}-{batch}{suffix}", command, limit)


def autoattack(version, images, limit, *more):
    command = ("benchmark_autoattack.py", "--device", "gpu", "--net", "convnext_tiny_convstem", "--resolution", "224")
    command += ("--version", version, "--eps", "1/255", "--images", str(images), "--batch", str(images))
    command += ("--backend", "jax", "--threads", str(os.cpu_count()), *more)
    return Piece("-".join(("autoattack", version, str(images), *(word.strip("-") for word in more))), command, limit)


def plan(previous):
    """The pieces in turn; `previous` maps the names of those that ran to what they wrote."""
    yield step("convnext_tiny_convstem", 80, 125, 165)
    yield step(
        "vit_small_convstem",
        80,
        80,
        110,
        "--variants",
        "jax",
        "plain nhwc",
        "torch compiled",
        "plain compiled",
        "jax clean",
    )
    yield autoattack("short", 16, 75)
    for backend in ("jax", "torch"):
        yield Piece(f"kernels-{backend}", ("gpu_kernels.py", "--backend", backend), 40)
    largest = largest_batch(previous.get("step-convnext_tiny_convstem-80"))
    for variant in ("jax", "plain nhwc") if largest else ():  # one alone: it fills the card
        suffix = f"-{variant.split()[0]}"
        yield step("convnext_tiny_convstem", largest, 50, 65, "--variants", variant, suffix=suffix)
    yield step("convnext_base_convstem", 80, 70, 95, "--variants", "jax", "plain nhwc", "jax clean")
    yield autoattack("short", 16, 60, "--tf32")
    yield autoattack("short", 64, 90, "--tf32")
    yield autoattack("standard", 16, 120)


def tiny_plan(previous):
    """The same in miniature, to try the session out where there is no GPU."""
    small = (
        "--resolution",
        "32",
        "--steps",
        "2",
        "--repeats",
        "2",
        "--variants",
        "jax",
        "plain nhwc",
        "torch",
        "jax clean",
    )
    yield Piece(
        "step-convnext_atto_convstem-4",
        ("benchmark.py", "--device", "gpu", "--model", "convnext_atto_convstem", "--batch", "4", *small),
        200,
    )
    for backend in ("jax", "torch"):
        yield Piece(
            f"kernels-{backend}", ("gpu_kernels.py", "--backend", backend, "--batch", "2", "--calls", "2", "--tiny"), 60
        )
    command = (
        "benchmark_autoattack.py",
        "--device",
        "gpu",
        "--net",
        "convnext_atto_convstem",
        "--resolution",
        "32",
        "--version",
        "short",
    )
    yield Piece(
        "autoattack-short-4", (*command, "--eps", "64/255", "--images", "4", "--batch", "4", "--backend", "torch"), 200
    )
    yield Piece("endless", ("gpu_session.py", "--sleep"), 3)


def largest_batch(record):
    """As many images as nine tenths of the card's memory hold, by what 80 of them took on JAX; None where unknown."""
    measured = ((record or {}).get("results") or {}).get("variants", {}).get("jax", {})
    card, taken = memory_of_card(), measured.get("peak_memory")
    if not card or not taken:
        return None
    return min(max(int(0.9 * card / taken) * 80, 80), 1600) if card > taken else None


def memory_of_card():
    """MiB, or None without nvidia-smi."""
    try:
        query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
        return float(subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0])
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return None


def environment(wheels, scratch):
    """The environment of the pieces: the wheels on the path, and caches of what is compiled, for them to share."""
    path = [str(TOOLS.parent)]
    if wheels is not None:
        site = scratch / "site"
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
        subprocess.run([*install, "--target", str(site), *map(str, sorted(wheels.glob("*.whl")))], check=True)
        path.append(str(site))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "PYTHONUNBUFFERED": "1",
        "JAX_COMPILATION_CACHE_DIR": str(scratch / "jax"),
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        "KERAS_HOME": str(scratch / "keras"),
    }


def run(piece, limit, folder, log, environment):
    """What became of a piece: its seconds, how it ended, and what it wrote; what it printed goes to the file `log`."""
    file = folder / f"{piece.name}.json"
    script, *options = piece.command
    command = [sys.executable, str(TOOLS / script), *options]
    if script != "gpu_session.py":
        command += ["--json", str(file)]
    start = time.monotonic()
    with log.open("a") as printed:
        print(f"== {piece.name}", file=printed, flush=True)
        # A session of its own: its workers end with it.
        process = subprocess.Popen(
            command, stdout=printed, stderr=subprocess.STDOUT, env=environment, cwd=TOOLS.parent, start_new_session=True
        )
        try:
            ended = f"exit status {process.wait(limit)}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {limit:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    try:
        written = json.loads(file.read_text())
    except (OSError, ValueError):
        written = None
    return {"seconds": round(time.monotonic() - start, 1), "ended": ended, "result": written}


def session(options):
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu.log").unlink(missing_ok=True)
    end = time.monotonic() + options.seconds
    record = {"pieces": {}}
    with tempfile.TemporaryDirectory() as scratch:
        surroundings = environment(options.wheels, Path(scratch))
        pieces = (tiny_plan if options.tiny else plan)(results := {})
        for piece in pieces:
            left = end - time.monotonic()
            if left < LEAST and not options.tiny:
                record["pieces"][piece.name] = {"ended": "no time was left"}
            else:
                print(f"== {piece.name}", flush=True)
                done = run(piece, min(piece.limit, left), Path(scratch), out / "gpu.log", surroundings)
                record["pieces"][piece.name], results[piece.name] = done, done["result"]
                print(f"   {done['seconds']} s, {done['ended']}", flush=True)
            beside = out / "gpu.json.new"
            beside.write_text(json.dumps(record, indent=1) + "\n")
            beside.replace(out / "gpu.json")
    print("\n" + tables(record))


def tables(record):
    """The figures as Markdown."""
    pieces = {name: piece["result"] for name, piece in record["pieces"].items() if piece.get("result")}
    lines = steps_table([piece for name, piece in pieces.items() if name.startswith("step-")])
    lines += [
        "",
        *kernels_table([row for name, piece in pieces.items() if name.startswith("kernels-") for row in piece]),
    ]
    lines += ["", *autoattack_table([piece for name, piece in pieces.items() if name.startswith("autoattack-")])]
    failed = [f"{name}: {piece['ended']}" for name, piece in record["pieces"].items() if not piece.get("result")]
    return "\n".join([*lines, *(["", "Without a result: " + "; ".join(failed)] if failed else [])])


def steps_table(pieces):
    lines = [
        "| model, batch | step | images/s | ms | TFLOP/s | of peak | of `plain nhwc` | memory, MiB | built in, s |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for piece in pieces:
        result = piece["results"]
        variants = result["variants"]
        work = next(
            (each["details"]["multiply_adds"] for each in variants.values() if "multiply_adds" in each["details"]), None
        )
        medians = {name: statistics.median(each["seconds"]) for name, each in variants.items()}
        for name, each in variants.items():
            flops = work and 2 * work * each["details"]["passes"] * result["batch"] / medians[name] / 1e12
            device = each["details"].get("device", "")
            peak = next((value for card, value in PEAKS.items() if card in device), None)
            plain = medians.get(
                "plain nhwc clean" if name.endswith("clean") or "clean" in name.split() else "plain nhwc"
            )
            cells = (
                f"{result['model']}, {result['batch']}",
                name,
                f"{result['batch'] / medians[name]:,.0f}",
                f"{1000 * medians[name]:.1f}",
                f"{flops:.1f}" if flops else "-",
                f"{flops / peak:.0%}" if flops and peak else "-",
                f"{plain / medians[name]:.2f}" if plain else "-",
                f"{each['peak_memory']:,.0f}",
                f"{each['build_seconds']:.0f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
        for pair, ratio in result["ratios"].items():
            if pair.endswith(" clean") or pair.endswith("clean compiled"):
                lines.append(f"| | {pair}: {ratio['median']:.2f}, memory {ratio['peak_memory']:.2f} | | | | | | | |")
        lines += [f"| | {name}: {reason} | | | | | | | |" for name, reason in result["missing"].items()]
    return lines


def kernels_table(rows):
    lines = ["| operation | shape | way | forward, ms | both passes, ms |", "|---|---|---|---:|---:|"]
    for row in rows:
        if "missing" in row:
            times = f"{row['missing'].splitlines()[0][:80]} | "
        else:
            times = f"{row['forward_ms']:.3f} | {row['both_ms']:.3f}"
        shape = " x ".join(map(str, row["shape"]))
        lines.append(f"| {row['operation']} | {shape} | {row['backend']}: {row['variant']} | {times} |")
    return lines


def autoattack_table(pieces):
    lines = [
        "| AutoAttack | images | TF32 | ours, s | ours compiled, s | pyautoattack, s | ratio | ratio compiled |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for piece in pieces:
        cells = (
            f"{piece['net']}, `{piece['version']}`, {piece['backend']}",
            str(piece["images"]),
            "on" if piece["tf32"] else "off",
            *(f"{piece[who][what]:.1f}" for who, what in (("ours", "seconds"), ("ours", "seconds_compiled"))),
            f"{piece['reference']['seconds']:.1f}",
            f"{piece['ratio_of_seconds']:.2f}",
            f"{piece['ratio_of_seconds_compiled']:.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="of wheels to use besides what is installed")
    parser.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT", "figures")), help="folder ($OUT, else figures)"
    )
    parser.add_argument("--seconds", type=int, default=470, help="for all pieces together (%(default)s)")
    parser.add_argument("--tiny", action="store_true", help="in miniature, also on a CPU, to try the script out")
    parser.add_argument("--table", type=Path, metavar="JSON", help="only print the table of a session")
    parser.add_argument("--sleep", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.sleep:
        time.sleep(3600)
    elif options.table is not None:
        print(tables(json.loads(options.table.read_text())))
    elif options.wheels is not None and not any(options.wheels.glob("*.whl")):
        parser.exit(2, f"{parser.prog}: argument --wheels: there are no wheels in {options.wheels}\n")
    else:
        session(options)


if __name__ == "__main__":
    main()
